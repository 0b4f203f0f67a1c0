# What the runbooks share: an installation by hand, of the real programs, in a folder that goes away.
# Not a runbook itself; the others read it with `.`.
# shellcheck shell=bash
set -euo pipefail
umask 077

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -n "${SSO_BIN:-}" ]; then
    bin=$SSO_BIN
elif command -v sso >/dev/null 2>&1; then
    bin=$(dirname "$(command -v sso)")
else
    for bin in "$here/../../target/release" "$here/../../target/debug"; do
        [ ! -x "$bin/sso-master" ] || break
    done
fi
PATH=$(cd "$bin" && pwd):$PATH
unset CREDENTIALS_DIRECTORY SSO_CONFIG SSO_PROFILE SSO_ADDR SSO_CA SSO_CERT SSO_KEY SSO_CRL SSO_TOKEN_FILE SSO_MASTER

work=$(mktemp -d "${TMPDIR:-/tmp}/sso-runbook.XXXXXX")
cd "$work"
declare -A processes=() ports=()

finish() {
    local code=$? name
    trap - EXIT
    for name in "${!processes[@]}"; do kill -9 "${processes[$name]}" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ "$code" -ne 0 ]; then tail -n 15 "$work"/*/*.log >&2 2>/dev/null || true; fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

chapter=0
heading() {
    chapter=$((chapter + 1))
    printf '\n%d. %s\n' "$chapter" "$*"
}

surprise() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Prints the command as one would type it, then runs it.
show() {
    printf '   $ %s\n' "$*"
    "$@"
}

# The same for a command that has to fail, and to say this.
refused() {
    local words=$1 code=0
    shift
    printf '   $ %s\n' "$*"
    "$@" >refusal 2>&1 || code=$?
    [ "$code" -ne 0 ] || surprise "this should have been refused: $*"
    grep -q -- "$words" refusal || { cat refusal >&2; surprise "refused, but not with '$words'"; }
    printf '   -> refused: %s\n' "$(head -n 1 refusal)"
}

# Below the ports that `sso dev` and the tests take.
free_port() {
    local port
    while :; do
        port=$((10000 + RANDOM % 10000))
        case " ${ports[*]-} " in *" $port "*) continue ;; esac
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# The port of a name, always the same: NAME is a service, NAME-page its operations page.
port_of() {
    [ -n "${ports[$1]-}" ] || ports[$1]=$(free_port)
    printf -v "$2" '%s' "${ports[$1]}"
}

# `yes` in scripts whose masters get the passphrase as a systemd credential, as in the manual.
credentials=no
handed_over=()

# hand_over MASTER: what systemd does for LoadCredential=. Every start and every command gets a folder of
# its own; who is started without it has no $CREDENTIALS_DIRECTORY.
hand_over() {
    local folder
    handed_over=()
    [ "$credentials" = yes ] || return 0
    folder=$(mktemp -d "$work/credentials.XXXXXX")
    install -m 0400 "$1/passphrase" "$folder/master-passphrase"
    handed_over=(env "CREDENTIALS_DIRECTORY=$folder")
}

# as_service MASTER COMMAND…: by hand what opens the keystore, as `as_master` in the manual.
as_service() {
    hand_over "$1"
    shift
    "${handed_over[@]}" "$@"
}

secret_file() {
    head -c 32 /dev/urandom | base64 >"$1"
}

certificates() {
    sso cert ca --out pki --name 'Runbook SSO' >/dev/null
    local name
    for name in "$@"; do
        case $name in
            master*) sso cert issue --ca pki --out pki --role master --name "$name" --ip 127.0.0.1 >/dev/null ;;
            server*) sso cert issue --ca pki --out pki --role server --name "$name" --ip 127.0.0.1 >/dev/null ;;
            *) sso cert issue --ca pki --out pki --role client --name "$name" --account "CORP\\$name" >/dev/null ;;
        esac
    done
}

# master_settings NAME ROLE [PEER…]: a host of its own is a folder of its own.
master_settings() {
    local name=$1 role=$2 port page peer passphrase='passphrase_file = "passphrase"'
    shift 2
    [ "$credentials" = no ] || passphrase='credential = "master-passphrase"'
    port_of "$name" port
    port_of "$name-page" page
    mkdir -p "$name"
    [ -e "$name/passphrase" ] || secret_file "$name/passphrase"
    {
        cat <<END
version = 1
name = "$name"
role = "$role"
keystore = "keystore.json"
listen = "127.0.0.1:$port"
operations_listen = "127.0.0.1:$page"
heartbeat_interval_ms = 500

[tls]
certificate = "../pki/$name.crt"
key = "../pki/$name.key"
ca = "../pki/ca.crt"

[[protector]]
kind = "passphrase"
$passphrase

[administration]
socket = "sock"

[[administrator]]
name = "operator"
user = "$(id -un)"

[[server]]
name = "server-1"
certificate = { san_uri = "sso-server://server-1" }
END
        for peer in "$@"; do
            port_of "$peer" port
            cat <<END

[[peer]]
name = "$peer"
url = "https://127.0.0.1:$port"
certificate = { san_uri = "sso-master://$peer" }
END
        done
    } >"$name/settings.toml"
}

# server_settings NAME MASTER…
server_settings() {
    local name=$1 port page master urls=''
    shift
    for master in "$@"; do
        port_of "$master" port
        urls+="${urls:+, }\"https://127.0.0.1:$port\""
    done
    port_of "$name" port
    port_of "$name-page" page
    mkdir -p "$name"
    cat >"$name/settings.toml" <<END
version = 1
name = "$name"
listen = "127.0.0.1:$port"
operations_listen = "127.0.0.1:$page"

[tls]
certificate = "../pki/$name.crt"
key = "../pki/$name.key"
ca = "../pki/ca.crt"

[database]
url = "sqlite:../sso.db"

[master]
urls = [$urls]

[identity]
domains = ["CORP"]
groups_file = "../groups.toml"

[[identity.certificate]]
san_uri = "sso://CORP/*"
account = 'CORP\\*'

[initial]
sso_administrators = ['CORP\\Administrators']
affiliate_administrators = ['CORP\\Administrators']
END
    cat >groups.toml <<'END'
version = 1
[groups]
'CORP\Administrators' = ['CORP\alice']
END
}

profiles() {
    local port name
    port_of server-1 port
    : >profiles.toml
    chmod 600 profiles.toml
    printf 'version = 1\ndefault = "alice"\n' >>profiles.toml
    for name in alice orders; do
        cat >>profiles.toml <<END

[profile.$name]
addr = "https://127.0.0.1:$port"
ca = "pki/ca.crt"
cert = "pki/$name.crt"
key = "pki/$name.key"
END
    done
    export SSO_CONFIG=$work/profiles.toml
}

# start NAME: the program of that name in its folder, until it is ready.
start() {
    local name=$1 page
    case $name in
        master*)
            hand_over "$name"
            "${handed_over[@]}" sso-master run --settings "$name/settings.toml" >>"$name/$name.log" 2>&1 &
            ;;
        *) sso-server run --settings "$name/settings.toml" >>"$name/$name.log" 2>&1 & ;;
    esac
    processes[$name]=$!
    port_of "$name-page" page
    within 60 "$name is ready" page_answers "$page" "$name"
}

page_answers() {
    kill -0 "${processes[$2]}" 2>/dev/null || surprise "$2 has ended"
    local line
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
    IFS= read -r line <&3 || line=''
    exec 3<&- 3>&-
    case $line in *' 200 '*) return 0 ;; *) return 1 ;; esac
}

stop() {
    kill -TERM "${processes[$1]}"
    wait "${processes[$1]}" || surprise "$1 did not end well"
    unset "processes[$1]"
}

# As a host that burns down.
lose() {
    kill -9 "${processes[$1]}"
    wait "${processes[$1]}" 2>/dev/null || true
    unset "processes[$1]"
    rm -rf "${1:?}"
}

# within SECONDS WHAT COMMAND…: until the command succeeds.
within() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || surprise "not in time: $what"
        sleep 0.1
    done
}

# at MASTER COMMAND…: a command about the master secret, on the machine of that master.
at() {
    local master=$1
    shift
    sso "$@" --master "unix://$work/$master/sock"
}

at_master() { show at "$@"; }

put() {
    printf '{"url":"%s","key":"%s"}' "$1" "$2" | sso --quiet config set Orders.Settings "$3" --values - >/dev/null
}

expect() {
    local found
    found=$(sso --profile orders --output json config get Orders.Settings "$2" --reveal)
    case $found in *"$1"*) ;; *) surprise "$2 is not what was written: $found" ;; esac
}

can_put() { put "$@" 2>/dev/null; }

# An installation that has run for a while: one master, one server, an application with values.
# shellcheck disable=SC2119,SC2120 # where there are no others
installation() { installation_with; }

# The same, whose settings name these other masters too.
# shellcheck disable=SC2120 # see above
installation_with() {
    certificates master-1 master-2 server-1 alice orders
    master_settings master-1 primary "$@"
    secret_file backup.password
    as_service master-1 sso-master init --settings master-1/settings.toml --backup first.backup \
        --backup-password-file backup.password --reminder 'envelope 7 in the safe' >/dev/null
    server_settings server-1 master-1 "$@"
    profiles
    start master-1
    start server-1
    sso --quiet app create Orders.Settings --enable --users 'CORP\orders' \
        --admins 'CORP\Administrators' --field url --field key:masked >/dev/null
    put https://orders.example first-key One
    put https://bills.example second-key Two
}
