# What the story of the payment gateway is played on: processes, ports, certificates, requests, and
# waiting for conditions. Not a story itself; run.sh reads it with `.`.
# shellcheck shell=bash
set -euo pipefail
umask 077

if [ -z "${SSO_CONFIG:-}" ]; then
    echo 'This needs a throw-away system: sso dev -- examples/payment-gateway/run.sh' >&2
    exit 2
fi
for program in payment-gateway payment-host; do
    if ! command -v "$program" >/dev/null 2>&1; then
        echo "$program is not on the search path: cargo build -p payment-gateway puts it beside sso" >&2
        exit 2
    fi
done
for program in curl openssl; do
    if ! command -v "$program" >/dev/null 2>&1; then
        echo "$program is not installed: the story needs it" >&2
        exit 2
    fi
done

work=$(mktemp -d "${TMPDIR:-/tmp}/sso-payment.XXXXXX")
cd "$work"
mkdir lists certificates gateway portal
# Ports name files below the folder of the store alone; what may be named is linked there.
ln -s ../lists certificates/lists
ln -s ../pki/issuing/root.crt certificates/ca.crt
# How long anything may take, in seconds: machines that test are slow.
patience=90
declare -A processes=() ports=()

finish() {
    local code=$? name
    trap - EXIT
    for name in "${!processes[@]}"; do kill -9 "${processes[$name]}" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ "$code" -ne 0 ]; then
        for name in "$work"/*.log; do
            if [ -s "$name" ]; then printf -- '--- %s\n' "$name" >&2; tail -n 25 "$name" >&2; fi
        done
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
chapter=0
heading() {
    chapter=$((chapter + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$chapter" "$1" "$plain"
    if [ $# -gt 1 ]; then printf '   %s\n' "${@:2}"; fi
}

say() { printf '   %s\n' "$@"; }

surprise() {
    echo "payment-gateway: $*" >&2
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

# until_true WHAT COMMAND…: waits until the command succeeds.
until_true() {
    local what=$1 end=$((SECONDS + patience))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || surprise "not within $patience seconds: $what"
        sleep 0.1
    done
}

# Fails unless the file has the text.
has() {
    grep -qF -- "$2" "$1" || surprise "'$2' is missing in $1"
}

# From here on `said` looks at the log of the program.
mark() { wc -l <"$1.log" >"$1.mark"; }

# said PROGRAM WORD…: the first line of its log since the mark that has all the words; fails if there is none.
said() {
    local lines word
    lines=$(tail -n "+$(($(cat "$1.mark") + 1))" "$1.log")
    shift
    for word in "$@"; do
        lines=$(grep -F -- "$word" <<<"$lines") || return 1
    done
    head -n 1 <<<"$lines"
}

# What is shown of others, set off from the story.
quoted() { sed 's/^/   | /'; }

# The same line, without its time.
quote() { said "$@" | sed 's/^[^ ]* *//' | quoted; }

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

for name in gateway bank gateway-page bills notifications host-page lists; do
    ports[$name]=$(free_port)
done

# start NAME COMMAND…: in the background, its output in NAME.log.
start() {
    local name=$1
    shift
    "$@" >>"$name.log" 2>&1 &
    processes[$name]=$!
}

stop() {
    kill "${processes[$1]}"
    wait "${processes[$1]}" || surprise "$1 did not end well"
    unset "processes[$1]"
}

# Whether what listens there is ready.
ready() {
    curl --silent --fail --max-time 5 "http://127.0.0.1:${ports[$1]}/readyz"
}

# page PROGRAM-page NAME: what the program tells those who operate it.
page() {
    curl --silent --max-time 5 "http://127.0.0.1:${ports[$1]}/$2"
}

# Whether a page has the text.
page_has() {
    page "$1" "$2" | grep -qF -- "$3"
}

# value JSON KEY: the text or number under the key, where the document has one of it.
value() {
    sed -n "s/.*\"$2\": *\"\{0,1\}\([^\",}]*\).*/\1/p" <<<"$1" | head -n 1
}

# certificate NAME 'USAGE…' OPTION…: a key and a request by whoever needs it, a signature by the authority,
# and the result in the folder `certificates`, checked. An older one of the name is replaced.
certificate() {
    local name=$1 usage usages=()
    for usage in $2; do usages+=(--usage "$usage"); done
    shift 2
    rm -rf "requests/$name"
    sso --quiet cert request --out "requests/$name" --name "$name" "${usages[@]}" "$@" >/dev/null
    sso --quiet cert sign --ca pki/issuing "requests/$name/$name.csr" --out "requests/$name/$name.pem" \
        "${usages[@]}" --days 90 --yes >/dev/null
    sso --quiet cert install --certificate "requests/$name/$name.pem" --key "requests/$name/$name.key" \
        --ca pki/issuing/root.crt --out certificates --name "$name" "${usages[@]}" --replace >/dev/null
    rm -rf "requests/$name"
}

# The thumbprint (SHA-256) of a certificate. Those of its authorities stand above it.
thumbprint_of() {
    sso cert show "$1" --output json | sed -n 's/.*"thumbprint_sha256": *"\([0-9a-f]*\)".*/\1/p' | tail -n 1
}
thumbprint() { thumbprint_of "certificates/$1.crt"; }

# serves PORT THUMBPRINT: whether whoever listens there shows this certificate.
serves() {
    openssl s_client -connect "127.0.0.1:${ports[$1]}" -cert certificates/portal.crt \
        -cert_chain certificates/portal.crt -key certificates/portal.key -CAfile pki/issuing/root.crt </dev/null 2>/dev/null \
        | openssl x509 -noout -fingerprint -sha256 | tr -d ':' | grep -qi "=$2\$"
}

# New revocation lists, where the distribution point has them.
issue_lists() {
    sso --quiet cert crl --ca pki/root --out lists/root.crl --days 30 >/dev/null
    sso --quiet cert crl --ca pki/issuing --out lists/issuing.crl --days 7 >/dev/null
}

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# token USER: what the portal's identity provider says of its user, signed, good for ten minutes.
token() {
    local now head claims
    now=$(date +%s)
    head=$(printf '{"alg":"EdDSA","typ":"JWT","kid":"sso-dev"}' | base64url)
    claims=$(printf '{"iss":"https://sso-dev.invalid","aud":"sso","sub":"%s","preferred_username":"%s","iat":%d,"exp":%d}' \
        "$1" "$1" "$now" "$((now + 600))" | base64url)
    printf '%s.%s' "$head" "$claims" >"$work/token.signed"
    openssl pkeyutl -sign -rawin -inkey "$(dirname "$SSO_CONFIG")/tokens/issuer.key" \
        -in "$work/token.signed" -out "$work/token.signature"
    printf '%s.%s.%s' "$head" "$claims" "$(base64url <"$work/token.signature")"
}

# as NAME ARGUMENT…: curl with the certificate of that name. What nobody must see in the list of processes
# comes from files.
as() {
    local name=$1
    shift
    curl --silent --show-error --max-time 30 --cacert pki/issuing/root.crt \
        --cert "certificates/$name.crt" --key "certificates/$name.key" "$@"
}

bill() {
    printf '{"number":"%s","amount_minor":12990,"currency":"EUR","payer":"Ann Example","purpose":"Car insurance"}' "$1"
}

# hand_in NUMBER: the portal hands in a bill for ann; the status is left in $status, the answer in $answer.
hand_in() {
    local token
    token=$(token ann) || surprise 'no token'
    printf 'Authorization: Bearer %s\n' "$token" >portal/authorization
    bill "$1" >portal/bill
    status=$(as portal --output portal/answer --write-out '%{http_code}' --header @portal/authorization \
        --data-binary @portal/bill "https://127.0.0.1:${ports[bills]}/bills") || status=none
    answer=$(cat portal/answer 2>/dev/null || true)
}

# accepted NUMBER: hands in a bill that has to be accepted.
accepted() {
    hand_in "$1"
    [ "$status" = 202 ] || surprise "bill $1 was not accepted: $status $answer"
}

look() { as portal "https://127.0.0.1:${ports[bills]}/bills/$1"; }

# Whether a bill is in this state, or has this in its way.
is() { [ "$(value "$(look "$1")" state)" = "$2" ]; }
waits_for() { look "$1" | grep -qF -- "$2"; }

# pay NUMBER: the customer pays the bill at the bank.
pay() {
    local payment
    payment=$(value "$(look "$1")" payment_number)
    curl --silent --show-error --fail --max-time 30 --request POST \
        "http://127.0.0.1:${ports[bank]}/payments/$payment$2"
}

start_publisher() {
    start lists payment-gateway publish --listen "127.0.0.1:${ports[lists]}" --folder lists
    until_true 'the lists are published' \
        curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:${ports[lists]}/issuing.crl"
}

# gateway_settings POLICY: what the gateway is told; its lists come from the authority's distribution point.
gateway_settings() {
    cat >gateway.toml <<TOML
version = 1
name = "gateway.example"
database = "gateway/gateway.db"
signing_key = "gateway/signing.key"
listen = "127.0.0.1:${ports[gateway]}"
bank_listen = "127.0.0.1:${ports[bank]}"
operations_listen = "127.0.0.1:${ports[gateway-page]}"
valid_days = 14

[tls]
certificate = "certificates/gateway.crt"
key = "certificates/gateway.key"
ca = "pki/issuing/root.crt"
crl = ["http://127.0.0.1:${ports[lists]}/root.crl", "http://127.0.0.1:${ports[lists]}/issuing.crl"]
revocation = "$1"
crl_refresh_seconds = 10

[notify]
retry_first_ms = 200
retry_most_seconds = 2

[process]
stop_with_parent = true
TOML
}

start_gateway() {
    gateway_settings "$1"
    touch gateway.log
    mark gateway
    start gateway payment-gateway run --settings gateway.toml
    until_true 'the gateway is ready' ready gateway-page
}

start_host() {
    cat >host.toml <<TOML
version = 1
database = "host.db"
certificates = "certificates"
applications = ["PaymentGateway"]
operations_listen = "127.0.0.1:${ports[host-page]}"
profile = "host"

[places]
upload = "PaymentHost.SendPorts/upload"
bills = "PaymentHost.ReceiveLocations/bills"
notifications = "PaymentHost.ReceiveLocations/notifications"
parties = "PaymentHost.Parties/parties"
agreement = "PaymentHost.Agreements/agreement"

[process]
stop_with_parent = true
TOML
    touch host.log
    mark host
    start host payment-host --settings host.toml
    until_true 'the host is ready' ready host-page
}

# configure APPLICATION IDENTIFIER: writes the values on standard input, a JSON object.
configure() {
    sso --profile app-admin config set "$1" "$2" --values - >/dev/null
}
