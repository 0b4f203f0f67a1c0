#!/usr/bin/env bash
# Runbook: the master moves to another host. The new host begins as a standby, is promoted, and the old
# one is switched off; nothing is refused meanwhile.
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

heading 'The old host, and servers that know both addresses'
installation_with master-2
expect first-key One

heading 'The new host begins as a standby'
master_settings master-2 standby master-1
show sso-master init --settings master-2/settings.toml
start master-2
has_all() {
    at master-1 --output json secret status 2>/dev/null | tr -d ' \n' | grep -q '"name":"master-2"[^}]*"up_to_date":true'
}
within 30 'the new host has everything' has_all

heading 'Promote the new host; the old one steps down by itself'
at_master master-2 secret promote
stepped_down() { at master-1 --output json secret status 2>/dev/null | tr -d ' \n' | grep -q '"role":"standby"'; }
within 30 'the old host follows' stepped_down
put https://orders.example third-key Three

heading 'Switch the old host off, take it out of the settings, and rotate'
stop master-1
within 15 'writes go on' can_put https://orders.example fourth-key Four
master_settings master-2 primary
stop master-2
start master-2
at_master master-2 secret rotate --backup moved.backup --password-file backup.password --wait --retire
expect first-key One
expect third-key Three
expect fourth-key Four
