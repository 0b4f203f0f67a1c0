#!/usr/bin/env bash
# Runbook: the host of the master is lost, and a standby takes over. Then a new standby is made in the
# place of the host that was lost.
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

standby_has_all() {
    at master-1 --output json secret status 2>/dev/null | tr -d ' \n' | grep -q '"name":"master-2"[^}]*"up_to_date":true'
}
heading 'Two masters: the second one follows the first'
installation_with master-2
master_settings master-2 standby master-1
show sso-master init --settings master-2/settings.toml
start master-2
within 30 'the standby has everything' standby_has_all
at_master master-1 secret status
refused 'NOT_PRIMARY' at master-2 secret rotate --backup no.backup --password-file backup.password
[ ! -e no.backup ] || surprise 'a refused rotation left a backup'

heading 'The host of the first burns down; values are read and written on'
lose master-1
expect first-key One
within 15 'writes go on with the standby' can_put https://orders.example third-key Three

heading 'Promote: one command, on the standby'
at_master master-2 secret promote
at_master master-2 secret status
expect third-key Three

heading 'Rotation works again; the host that is gone is left behind on purpose'
at_master master-2 secret rotate --backup second.backup --password-file backup.password \
    --leave-behind master-1 --wait
expect first-key One

heading 'A new host in its place: it begins as a standby'
master_settings master-1 standby master-2
show sso-master init --settings master-1/settings.toml
start master-1
back() {
    at master-2 --output json secret status 2>/dev/null | tr -d ' \n' | grep -q '"name":"master-1"[^}]*"up_to_date":true'
}
within 30 'the new standby has everything' back
at_master master-1 secret status
