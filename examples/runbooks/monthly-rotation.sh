#!/usr/bin/env bash
# Runbook: rotation, once a month. A new generation, every value sealed again, the old generation
# retired; and what is kept of it until it is destroyed.
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

heading 'An installation that has run for a while'
installation
at_master master-1 secret status

heading 'Rotate: the backup comes first, is written here and opened again'
at_master master-1 secret rotate --backup second.backup --password-file backup.password \
    --reminder 'envelope 8 in the safe' --wait --retire
expect first-key One
put https://orders.example third-key Three
expect third-key Three
at_master master-1 secret status

heading 'The proof: every row opens with the keys of the new backup'
at_master master-1 secret verify second.backup --password-file backup.password --against-database

heading 'A backup that is too old is told as one'
refused 'generation 2' at master-1 secret verify first.backup --password-file backup.password --against-database

heading 'Again, at once: any number of generations may be there'
at_master master-1 secret rotate --backup third.backup --password-file backup.password --wait
at_master master-1 secret retire 2
expect second-key Two

heading 'Much later: the oldest key is destroyed, once no backup of the database needs it'
fingerprint=$(at master-1 --output json secret status |
    tr -d ' \n' | sed 's/.*"generation":1,"fingerprint":"\([0-9a-f]*\)".*/\1/')
refused 'FINGERPRINT' at master-1 secret destroy 1 --fingerprint 0000000000000000 --yes
at_master master-1 secret destroy 1 --fingerprint "$fingerprint" --yes
refused 'GENERATION' at master-1 secret destroy 3 --fingerprint "$fingerprint" --yes
expect first-key One
expect second-key Two
expect third-key Three
