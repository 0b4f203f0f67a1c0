#!/usr/bin/env bash
# Single sign-on with tickets, told by the `sso` command alone. It needs a throw-away system around it:
#   sso dev -- examples/single-sign-on.sh
set -euo pipefail
umask 077

application='Payroll.Mainframe'
user='DEV\user'

if [ -z "${SSO_CONFIG:-}" ]; then
    echo 'This needs a throw-away system: sso dev -- examples/single-sign-on.sh' >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
chapter=0
heading() {
    chapter=$((chapter + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$chapter" "$1" "$plain"
    if [ $# -gt 1 ]; then printf '   %s\n' "${@:2}"; fi
}

surprise() {
    echo "single-sign-on: $*" >&2
    exit 1
}

# Prints the command as one would type it, then runs it.
show() {
    local word line=''
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./=:@-]*) line+=" '$word'" ;;
            *) line+=" $word" ;;
        esac
    done
    printf '\n   $%s\n' "$line"
    "$@"
}

# The same for a command that has to be refused, and for this reason.
refused() {
    local reason=$1 code=0
    shift
    show "$@" >"$work/refusal" 2>&1 || code=$?
    cat "$work/refusal"
    [ "$code" -ne 0 ] || surprise 'this should have been refused'
    grep -q -- "$reason" "$work/refusal" || surprise "refused, but not for $reason"
    printf '   -> refused, exit code %d\n' "$code"
}

# Fails unless the file has the text.
has() {
    grep -qF -- "$2" "$1" || surprise "'$2' is missing"
}

heading 'The switches' 'Tickets are off until an SSO administrator allows them.' \
    'DEV\host is a trusted host: its word is taken for who sent a message.'
show sso --profile admin system update --tickets-allowed yes --ticket-timeout 2
show sso --profile host status --output json >"$work/status"
has "$work/status" '"trusted_host": true'

heading 'An application for the mainframe' \
    'Its fields: the name on the mainframe, and a password nobody sees who does not have to.'
if sso --profile affiliate-admin app show "$application" >/dev/null 2>&1; then
    show sso --profile affiliate-admin app delete "$application" --yes
fi
show sso --profile affiliate-admin app create "$application" --type individual \
    --first-field 'Mainframe user' --field 'Mainframe password:masked' \
    --users 'DEV\Application Users' \
    --admins 'DEV\Integration Hosts; DEV\Application Administrators' --enable
printf '\n   That it takes tickets is for an SSO administrator to say.\n'
refused TICKET_FLAGS_PROTECTED sso --profile affiliate-admin app update "$application" \
    --allow-tickets yes
show sso --profile admin app update "$application" --allow-tickets yes

heading 'A mapping, with credentials, in one call' \
    'DEV\user is USR0815 on the mainframe. The password comes from a file, never from the command line.'
printf '["mainframe-password-1"]\n' >"$work/credentials.json"
show sso --profile app-admin mapping create "$application" "$user" USR0815 \
    --values "$work/credentials.json" --enable
show sso --profile app-admin mapping list "$application"

heading 'Whose credentials' \
    'A user gets their own. An administrator, who wrote them, does not get them back that way.'
show sso --profile user credentials get "$application" --output json | tee "$work/own"
has "$work/own" '"mainframe-password-1"'
refused NOT_APPLICATION_USER sso --profile app-admin credentials get "$application"

heading 'A call goes out' \
    'The user (or a program that runs as the user) gets a ticket with its own identity, and puts it' \
    'into the message that it sends, beside the name of the sender. A trusted host that has the' \
    'token of the user gets one in the same way: ticket issue --user-token-file.'
printf '\n   $ sso --profile user ticket issue > message/ticket\n'
mkdir "$work/message"
sso --profile user ticket issue >"$work/message/ticket"
printf '%s' "$user" >"$work/message/sender"
[ "$(wc -l <"$work/message/ticket")" -eq 1 ] || surprise 'the ticket is more than a line'
show sso --profile user ticket inspect --ticket "$work/message/ticket"

heading 'Another host answers it' \
    'It is a trusted host and an administrator of the application: it redeems the ticket for the' \
    'credentials of the user, and logs on to the mainframe as USR0815.'
sender=$(cat "$work/message/sender")
show sso --profile host ticket redeem "$application" --ticket "$work/message/ticket" \
    --sender "$sender" --output json | tee "$work/redeemed"
has "$work/redeemed" '"external_user": "USR0815"'
has "$work/redeemed" '"mainframe-password-1"'

heading 'A host that is not trusted' \
    'It may administer the application, but who sent the message is not for it to say:' \
    'its own identity is compared with that of the ticket, and both are named.'
refused TICKET_SENDER_MISMATCH sso --profile app-admin ticket redeem "$application" \
    --ticket "$work/message/ticket" --sender "$sender"
has "$work/refusal" "$user"
has "$work/refusal" 'DEV\app-admin'
printf '\n   To leave the sender out does not help: tickets are to be validated here.\n'
refused TICKET_VALIDATION_REQUIRED sso --profile app-admin ticket redeem "$application" \
    --ticket "$work/message/ticket"

heading 'Once, and here only' \
    'Stricter than need be: a ticket is redeemed once, and only if it was issued for this application.'
show sso --profile admin app update "$application" --one-time-tickets yes \
    --require-ticket-audience yes
refused TICKET_AUDIENCE_WRONG sso --profile host ticket redeem "$application" \
    --ticket "$work/message/ticket" --sender "$sender"
sso --profile user --quiet ticket issue --audience "$application" >"$work/message/ticket"
sso --profile host --quiet ticket redeem "$application" --ticket "$work/message/ticket" \
    --sender "$sender" --output json >"$work/redeemed"
has "$work/redeemed" '"mainframe-password-1"'
refused TICKET_REDEEMED sso --profile host ticket redeem "$application" \
    --ticket "$work/message/ticket" --sender "$sender"

heading 'Why, and why not' 'An administrator of the application asks; nothing is revealed by it.'
show sso --profile app-admin explain "$user" "$application"
refused NOT_APPLICATION_USER sso --profile app-admin explain 'DEV\host' "$application" \
    credentials.reveal

heading 'Switched off' 'An administrator disables the mapping; its user cannot enable it again.'
show sso --profile app-admin mapping disable "$application" "$user"
refused MAPPING_DISABLED sso --profile user credentials get "$application" --refresh
refused MAPPING_DISABLED_BY_ADMINISTRATOR sso --profile user mapping enable "$application"
show sso --profile app-admin mapping enable "$application" "$user"

heading 'Who did what' 'Every ticket, every reveal and every denial, never a value.'
show sso --profile admin audit list --application "$application" | tee "$work/audit"
if grep -q 'mainframe-password-1' "$work/audit"; then surprise 'the audit shows a password'; fi

printf '\n%sThat was single sign-on.%s\n' "$bold" "$plain"
