#!/usr/bin/env bash
# Runbook: everything is lost but three things: a backup of the master secret, its password, and a
# backup of the database. The order is: master secret, proof against the database, servers.
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

heading 'What was kept: a backup of the master secret, its password, a copy of the database'
installation
at_master master-1 secret rotate --backup second.backup --password-file backup.password \
    --reminder 'envelope 8 in the safe' --wait
put https://orders.example third-key Three
stop server-1
mkdir kept
cp second.backup backup.password kept/
cp sso.db kept/
[ ! -e sso.db-wal ] || cp sso.db-wal kept/

heading 'The disaster'
lose master-1
rm -rf server-1 sso.db* ./*.backup backup.password pki

heading 'New hosts, new certificates, new settings'
certificates master-1 server-1 alice orders
master_settings master-1 primary
server_settings server-1 master-1
profiles
cp kept/sso.db* .

heading 'The master secret first'
show sso secret reminder kept/second.backup
show sso-master restore kept/second.backup --settings master-1/settings.toml --password-file kept/backup.password
start master-1

heading 'Then the servers, and the proof that everything opens'
start server-1
at_master master-1 secret verify kept/second.backup --password-file kept/backup.password --against-database
expect first-key One
expect second-key Two
expect third-key Three
put https://orders.example fourth-key Four
expect fourth-key Four
at_master master-1 secret status
