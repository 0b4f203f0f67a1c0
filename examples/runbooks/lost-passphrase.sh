#!/usr/bin/env bash
# Runbook: the passphrase of the keystore is lost. A second protector opens it still; without one the
# backup is restored under a new passphrase. The passphrase is a systemd credential here.
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
credentials=yes

heading 'An installation, and its passphrase is gone'
installation
stop master-1
secret_file master-1/passphrase
refused 'wrong passphrase' as_service master-1 sso-master run --settings master-1/settings.toml
before=$(sha256sum <master-1/keystore.json)

heading 'Restore the newest backup; the wrong password is refused and changes nothing'
secret_file wrong.password
refused 'wrong password; its reminder is: envelope 7 in the safe' \
    as_service master-1 sso-master restore first.backup --settings master-1/settings.toml --password-file wrong.password
refused 'CREDENTIALS_DIRECTORY is not set' \
    sso-master restore first.backup --settings master-1/settings.toml --password-file backup.password
[ "$before" = "$(sha256sum <master-1/keystore.json)" ] || surprise 'a refused restore changed the keystore'
show as_service master-1 \
    sso-master restore first.backup --settings master-1/settings.toml --password-file backup.password
compgen -G 'master-1/keystore.json.aside-*' >/dev/null || surprise 'the old keystore was not kept'
start master-1
expect first-key One
within 30 'writes go on' can_put https://orders.example third-key Three

heading 'So that it does not happen again: a second protector'
head -c 32 /dev/urandom >master-1/second.key
cat >>master-1/settings.toml <<'END'

[[protector]]
kind = "key-file"
key_file = "second.key"
END
show as_service master-1 sso-master protector add --settings master-1/settings.toml
show as_service master-1 sso-master protector list --settings master-1/settings.toml --try
stop master-1
secret_file master-1/passphrase
start master-1
expect second-key Two
