#!/usr/bin/env bash
# Runbook: the master gets another service account. Two commands: the old account lets the kernel
# forget its key, the new one takes it into its own keyring. Needs root, which gives files to accounts;
# with SSO_WITHOUT_KEYUTILS=1 it does without the kernel's keyring.
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ "$(id -u)" -ne 0 ]; then
    [ "${CI:-}" != true ] || surprise 'only root can play this'
    echo 'NOT PLAYED: only root can give files to another account'
    exit 0
fi

# Numbers that no account of the machine has: nothing has to be made and removed.
account_unused() { ! getent passwd "$1" >/dev/null; }
old=64101
until account_unused "$old"; do old=$((old + 1)); done
new=$((old + 1))
until account_unused "$new"; do new=$((new + 1)); done

# As a service of that account, such as with `systemd-run --uid=NAME`.
as() {
    local account=$1
    shift
    setpriv --reuid="$account" --regid="$account" --clear-groups -- "$@"
}

run_as() {
    setpriv --reuid="$1" --regid="$1" --clear-groups -- \
        "$work/programs/sso-master" run --settings "$settings" >>master-1/log.log 2>&1 &
    processes[master-1]=$!
    port_of master-1-page page
    within 60 'the master is ready' page_answers "$page" master-1
}

fingerprint() {
    as "$1" "$master" check --settings "$settings" --unlock 2>/dev/null | grep -o 'fingerprint [0-9a-f]*'
}

heading 'A master that runs as the old account'
chmod 711 "$work"
mkdir programs master-1
cp "$(command -v sso-master)" programs/
chmod 755 programs programs/sso-master
master=$work/programs/sso-master
settings=$work/master-1/settings.toml
certificates master-1
cp pki/master-1.crt pki/master-1.key pki/ca.crt master-1/
head -c 32 /dev/urandom >master-1/unlock.key
secret_file master-1/backup.password
port='' page=''
port_of master-1 port
port_of master-1-page page
keyring='[[protector]]
kind = "keyutils"'
[ -z "${SSO_WITHOUT_KEYUTILS:-}" ] || keyring=''
cat >"$settings" <<END
version = 1
name = "master-1"
keystore = "keystore.json"
listen = "127.0.0.1:$port"
operations_listen = "127.0.0.1:$page"

[tls]
certificate = "master-1.crt"
key = "master-1.key"
ca = "ca.crt"

$keyring

[[protector]]
kind = "key-file"
key_file = "unlock.key"
END
chown -R "$old:$old" master-1
as "$old" "$master" init --settings "$settings" --backup master-1/first.backup \
    --backup-password-file master-1/backup.password --reminder 'envelope 7' >/dev/null
before=$(fingerprint "$old")
run_as "$old"
show as "$old" "$master" protector list --settings "$settings" --try

heading 'Not as root: the master could not read its keystore any more'
refused 'belongs to the user' "$master" protector remove 1 --settings "$settings"

if [ -n "$keyring" ]; then
    heading 'The old account lets go, while the master runs (command 1)'
    # What a person of the old account might have taken along.
    cp --preserve=ownership,mode master-1/keystore.json master-1/taken.json
    sed 's/"keystore.json"/"taken.json"/; s/"unlock.key"/"other.key"/' "$settings" >master-1/taken.toml
    head -c 32 /dev/urandom >master-1/other.key
    chown "$old:$old" master-1/taken.toml master-1/other.key
    as "$old" "$master" check --settings master-1/taken.toml --unlock >/dev/null 2>&1 ||
        surprise 'the key was not in the keyring of the old account'
    show as "$old" "$master" protector remove keyutils --settings "$settings"
    forgotten() { ! as "$old" "$master" check --settings master-1/taken.toml --unlock >/dev/null 2>&1; }
    within 15 'the kernel forgets the key of the old account' forgotten
fi

heading 'Its files go to the new account, which starts the master'
stop master-1
show chown -R "$new:$new" master-1
run_as "$new"
[ "$(fingerprint "$new")" = "$before" ] || surprise 'another master secret'
refused 'Permission denied' as "$old" "$master" check --settings "$settings" --unlock

heading 'The new account takes the key into its keyring (command 2)'
show as "$new" "$master" protector add --settings "$settings"
show as "$new" "$master" protector list --settings "$settings" --try
as "$new" "$master" protector list --settings "$settings" --try --output json >list.json
! grep -q '"opens": false' list.json || surprise 'a protector does not open the keystore'
if [ -n "$keyring" ]; then
    grep -q '"kind": "keyutils"' list.json || surprise 'the keyring was not added'
fi
stop master-1
run_as "$new"
[ "$(fingerprint "$new")" = "$before" ] || surprise 'another master secret'
stop master-1

# This installation goes away: the kernel need not keep its key for days.
[ -z "$keyring" ] || as "$new" "$master" protector remove keyutils --settings "$settings" >/dev/null
