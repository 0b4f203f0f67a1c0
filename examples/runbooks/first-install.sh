#!/usr/bin/env bash
# Runbook: the first installation. One master, one server, the first secret in and out, and the proof
# that the backup is good.
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

heading 'Certificates: one for every program and every caller'
certificates master-1 server-1 alice orders
sso cert show pki/server-1.crt

heading 'The master secret: the backup is written and opened again before the keystore is made'
master_settings master-1 primary
secret_file backup.password
show sso-master init --settings master-1/settings.toml --backup first.backup \
    --backup-password-file backup.password --reminder 'envelope 7 in the safe'
show sso-master check --settings master-1/settings.toml --unlock
start master-1

heading 'The first server'
server_settings server-1 master-1
profiles
show sso-server check --settings server-1/settings.toml
start server-1
show sso status
show sso server list

heading 'The first secret'
show sso app create Orders.Settings --enable --users 'CORP\orders' \
    --admins 'CORP\Administrators' --field url --field key:masked
put https://orders.example first-key One
expect first-key One

heading 'Is everything as it should be?'
show sso secret reminder first.backup
at_master master-1 secret verify first.backup --password-file backup.password --against-database
at_master master-1 secret status
at master-1 --output json secret status >status.json
grep -q '"state": *"active"' status.json || surprise 'no active generation'
echo 'Keep the backup off the hosts, and its password in another place.'
