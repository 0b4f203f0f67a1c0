#!/usr/bin/env bash
# The story of a payment gateway integration: certificates from the request to the revocation, bills out,
# payments in. It needs a throw-away system around it:
#   sso dev -- examples/payment-gateway/run.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=SCRIPTDIR/stage.sh
. "$here/stage.sh"

heading 'Two authorities' 'A root that is used once in a while, and one below it that signs.' \
    'Each has a revocation list; the lists are fetched over HTTP from a distribution point.'
show sso cert ca --out pki/root --name 'Example Trust Root'
show sso cert ca --out pki/issuing --name 'Example Trust Issuing' --parent pki/root
issue_lists
start_publisher
say '' "The lists are at http://127.0.0.1:${ports[lists]}/root.crl and …/issuing.crl"

heading 'A certificate, step by step' \
    'The host makes a key, which never leaves it, and a request. The authority decides what the' \
    'certificate is good for, and for how long. The host checks what comes back, and installs it.'
show sso cert request --out requests --name host-client --usage client --dns payment-host.example
show sso cert sign --ca pki/issuing requests/host-client.csr --out requests/host-client.pem \
    --usage client --days 90 --yes
show sso cert install --certificate requests/host-client.pem --key requests/host-client.key \
    --ca pki/issuing/root.crt --out certificates --name host-client --usage client
show sso cert show certificates/host-client.crt --ca pki/issuing/root.crt
say '' 'In the same way: the gateway, the receive side of the host, and the portal of the users.'
certificate gateway 'server client' --ip 127.0.0.1 --dns gateway.example
certificate host-server server --ip 127.0.0.1
certificate portal client --dns portal.example

heading 'The gateway' \
    'A system of somebody else: HTTPS with a required client certificate, checked against the lists;' \
    'a merchant with a password, of which it keeps a hash; a key that it signs notifications with.'
key=$(payment-gateway key --out gateway/signing.key)
head -c 24 /dev/urandom | base64 >merchant.password
show payment-gateway merchant --database gateway/gateway.db --name agency-north \
    --client payment-host.example --scheme basic --value-file merchant.password \
    --notify-url "https://127.0.0.1:${ports[notifications]}/paid"
start_gateway hard-fail
say "It listens at https://127.0.0.1:${ports[gateway]}, and signs with $key"

heading 'Tickets' \
    'ann is a user of the portal: WEB\ann. At the gateway she is the merchant agency-north.' \
    'A ticket is good for three days here: the longest time that the gateway may be away.'
show sso --profile admin system update --tickets-allowed yes
show sso --profile affiliate-admin app create PaymentGateway --type individual \
    --first-field Merchant --field 'Password:masked' --users 'WEB\ann' \
    --admins 'DEV\Integration Hosts; DEV\Application Administrators' --enable
show sso --profile admin app update PaymentGateway --allow-tickets yes --require-ticket-audience yes \
    --ticket-timeout 4320
map_ann() {
    printf '["%s"]\n' "$(cat merchant.password)" >values.json
    sso --profile app-admin mapping create PaymentGateway 'WEB\ann' agency-north --values values.json \
        --enable >/dev/null
    rm values.json
}
map_ann
show sso --profile app-admin mapping list PaymentGateway

heading 'The ports' \
    'Addresses, thumbprints, lists, timeouts, parties: all of it is in the config store.' \
    'The settings of the host say no more than where to look.'
show sso --profile affiliate-admin app create --file "$here/applications.xml"
configure PaymentHost.SendPorts upload <<JSON
{ "Address": "https://127.0.0.1:${ports[gateway]}", "CertificateThumbprint": "$(thumbprint host-client)",
  "AuthorityFile": "ca.crt",
  "RevocationLists": "lists/root.crl, lists/issuing.crl", "RevocationPolicy": "hard-fail",
  "RevocationRefreshSeconds": "", "MinimumTlsVersion": "1.3", "AffiliateApplication": "PaymentGateway",
  "ConnectTimeoutSeconds": "5", "TimeoutSeconds": "20",
  "RetryFirstSeconds": "0.2", "RetryFactor": "2", "RetryMostSeconds": "2", "RetryAttempts": "" }
JSON
location() {
    configure PaymentHost.ReceiveLocations "$1" <<JSON
{ "Listen": "127.0.0.1:${ports[$1]}", "Path": "$2", "CertificateThumbprint": "$(thumbprint host-server)",
  "AuthorityFile": "ca.crt",
  "RevocationLists": "lists/root.crl, lists/issuing.crl", "RevocationPolicy": "hard-fail",
  "RevocationRefreshSeconds": "", "MinimumTlsVersion": "1.3", "ClientCertificate": "required",
  "HandshakeTimeoutSeconds": "", "IdleTimeoutSeconds": "" }
JSON
}
location bills /bills
location notifications /paid
configure PaymentHost.Parties parties <<JSON
{ "portal": "$(thumbprint portal)", "gateway": "$(thumbprint gateway)" }
JSON
configure PaymentHost.Agreements agreement <<JSON
{ "GatewayParty": "gateway", "GatewayName": "gateway.example", "GatewayKey": "$key",
  "Authentication": "basic", "PortalParties": "portal" }
JSON
show sso --profile app-admin config get PaymentHost.SendPorts upload
start_host
say '' 'The host is ready.'

heading 'Before the first bill' \
    'What would the host meet with? Each step of the handshake, with its own certificate.'
show sso cert check "127.0.0.1:${ports[gateway]}" --ca pki/issuing/root.crt \
    --cert certificates/host-client.crt --key certificates/host-client.key \
    --crl lists/root.crl --crl lists/issuing.crl

heading 'A bill' \
    'The portal hands it in over HTTPS with its certificate, and with the token of ann. The host has a' \
    'ticket issued for ann, and writes both down before it answers. Then it redeems the ticket for the' \
    'password of the merchant, and uploads the bill.'
accepted POL-1
say "POST /bills -> $status $answer"
until_true 'the bill is uploaded' is POL-1 uploaded
say "GET /bills/POL-1 -> $(look POL-1)"
first=$(value "$(look POL-1)" payment_number)
hand_in POL-1
[ "$status" = 200 ] || surprise "the same bill again: $status $answer"
[ "$(value "$answer" payment_number)" = "$first" ] || surprise 'the bill has another number now'
say '' 'Handed in once more, it is the same bill with the same number.'

heading 'Paid, once' \
    'The customer pays. The gateway posts a signed notification, and as it happens with gateways it' \
    'posts it again, and again. The bill is paid once.'
pay POL-1 '' >/dev/null
until_true 'the bill is paid' is POL-1 paid
for round in 1 2 3; do
    pay POL-1 /notification >/dev/null
    until_true "repetition $round is seen" \
        sh -c "[ \"\$(grep -c 'a notification came again' host.log)\" -ge $round ]"
done
[ "$(grep -c 'a bill is paid' host.log)" = 1 ] || surprise 'the bill was paid more than once'
page host-page metrics | grep '^payment_host_notifications_total' | quoted

heading 'Who may not' \
    'Without a certificate nobody gets in. The portal has one, and still is not the gateway.'
mark host
if curl --silent --max-time 30 --cacert pki/issuing/root.crt --output /dev/null \
    "https://127.0.0.1:${ports[bills]}/bills/POL-1"; then
    surprise 'somebody without a certificate got in'
fi
until_true 'the log has the reason' said host NO_CLIENT_CERTIFICATE
quote host NO_CLIENT_CERTIFICATE
as portal --output refusal --data-binary 'x.y.z' "https://127.0.0.1:${ports[notifications]}/paid"
has refusal PARTY_NOT_ALLOWED
quoted <refusal

heading 'Revoked' \
    'The key of the host got lost, they say. The authority revokes its certificate, and publishes a new' \
    'list. From now on the gateway turns the host away, and both can say why. The bill waits.'
show sso cert revoke --ca pki/issuing certificates/host-client.crt --reason key-compromise --yes
issue_lists
mark gateway
mark host
kill -HUP "${processes[gateway]}"
until_true 'the gateway has the new list' sh -c "! curl --silent --output /dev/null --max-time 10 \
    --cacert pki/issuing/root.crt --cert certificates/host-client.crt \
    --key certificates/host-client.key https://127.0.0.1:${ports[gateway]}/v1/bills"
accepted POL-2
until_true 'the bill waits for it' waits_for POL-2 'CERTIFICATE_REVOKED: the server refused'
refused=('TLS connection refused' CERTIFICATE_REVOKED "$(thumbprint host-client)")
until_true 'the gateway logs it' said gateway "${refused[@]}"
say '' 'The gateway, with thumbprint and serial number:'
quote gateway "${refused[@]}"
say 'The host:'
until_true '/readyz of the host says it' page_has host-page readyz CERTIFICATE_REVOKED
quote host 'CERTIFICATE_REVOKED: the server refused'
if show sso cert check "127.0.0.1:${ports[gateway]}" --ca pki/issuing/root.crt \
    --cert certificates/host-client.crt --key certificates/host-client.key \
    --crl lists/root.crl --crl lists/issuing.crl >checked 2>&1; then
    surprise 'the check should have failed'
fi
has checked CERTIFICATE_REVOKED
say '' 'And "sso cert check":'
grep CERTIFICATE_REVOKED checked | head -n 3 | quoted

heading 'A new certificate' \
    'Another key, another certificate, and its thumbprint into the config store: the host follows,' \
    'and the bill that waited goes through. Nothing was restarted.'
certificate host-client-2 client --dns payment-host.example
show sso --profile app-admin config set PaymentHost.SendPorts upload \
    "CertificateThumbprint=$(thumbprint host-client-2)"
until_true 'the bill that waited is uploaded' is POL-2 uploaded
say '' "GET /bills/POL-2 -> $(look POL-2)"

heading 'The list is away' \
    'The distribution point is down when the gateway starts. It cannot tell whether the certificate is' \
    'revoked, and says so, which is something else than "forbidden".'
stop lists
stop gateway
start_gateway hard-fail
accepted POL-3
until_true 'the bill waits for it' waits_for POL-3 REVOCATION_LIST_UNAVAILABLE
refused=('TLS connection refused' REVOCATION_LIST_UNAVAILABLE "$(thumbprint host-client-2)")
until_true 'the gateway logs it' said gateway "${refused[@]}"
say '' 'The gateway:'
quote gateway "${refused[@]}"
say 'The host:'
look POL-3 | quoted

heading 'Soft-fail, on purpose' \
    'The operator of the gateway decides that business goes on for now: revocation = "soft-fail".' \
    'The bill goes through, with a warning each time.'
stop gateway
start_gateway soft-fail
until_true 'the bill is uploaded' is POL-3 uploaded
until_true 'the gateway warns' said gateway WARN REVOCATION_LIST_UNAVAILABLE "$(thumbprint host-client-2)"
quote gateway WARN REVOCATION_LIST_UNAVAILABLE
page gateway-page metrics | grep '^sso_tls_revocation_soft_failures_total' | quoted
start_publisher
stop gateway
start_gateway hard-fail
accepted POL-4
until_true 'the bill is uploaded' is POL-4 uploaded
say '' 'The lists are back, and so is hard-fail.'

heading 'Certificates replaced under load' \
    'Bills come in and are paid without a pause while every certificate is renewed: that of the gateway in' \
    'its files, those of the host by thumbprints in the config store. Not one request fails.'
mark gateway
mark host
failures() {
    page host-page metrics | grep '^payment_host_uploads_total{outcome="failed"}' || true
    page gateway-page metrics | grep '^payment_gateway_notifications_total{outcome="refused"}' || true
}
failed_before=$(failures)
touch loading
load() {
    local number=0
    while [ -e loading ]; do
        number=$((number + 1))
        hand_in "$1-$number"
        if [ "$status" != 202 ]; then
            echo "$1-$number: $status $answer" >>load.failed
        fi
        echo "$1-$number" >>load.handed-in
        # The one before has its number by now, as a rule.
        if [ "$number" -gt 1 ] && is "$1-$((number - 1))" uploaded; then
            if pay "$1-$((number - 1))" '' >/dev/null; then
                echo "$1-$((number - 1))" >>load.paid
            else
                echo "$1-$((number - 1)) cannot be paid" >>load.failed
            fi
        fi
    done
}
handed_in() { [ "$(wc -l <load.handed-in)" -ge "$1" ]; }
touch load.handed-in load.paid load.failed
(load LOAD) &
processes[load]=$!
until_true 'the load has begun' handed_in 5
say '' 'The gateway gets a new certificate, in the same files. The host knows it beforehand.'
gateway_before=$(thumbprint gateway)
rm -rf renewed
mkdir renewed
sso --quiet cert request --out renewed --name gateway --usage server --usage client --ip 127.0.0.1 --dns gateway.example \
    >/dev/null
sso --quiet cert sign --ca pki/issuing renewed/gateway.csr --out renewed/gateway.pem --usage server --usage client \
    --days 90 --yes >/dev/null
gateway_after=$(thumbprint_of renewed/gateway.pem)
show sso --profile app-admin config set PaymentHost.Parties parties "gateway=$gateway_before, $gateway_after"
show sso cert install --certificate renewed/gateway.pem --key renewed/gateway.key \
    --ca pki/issuing/root.crt --out certificates --name gateway --replace
until_true 'the gateway shows its new certificate' serves gateway "$gateway_after"
handed=$(wc -l <load.handed-in)
until_true 'bills come in still' handed_in $((handed + 5))
say '' 'The host gets a new client certificate, and a new one for its receive locations.'
certificate host-client-3 client --dns payment-host.example
certificate host-server-2 server --ip 127.0.0.1
show sso --profile app-admin config set PaymentHost.SendPorts upload \
    "CertificateThumbprint=$(thumbprint host-client-3)"
for location in bills notifications; do
    show sso --profile app-admin config set PaymentHost.ReceiveLocations "$location" \
        "CertificateThumbprint=$(thumbprint host-server-2)"
done
until_true 'the host shows its new certificate' serves bills "$(thumbprint host-server-2)"
until_true 'the host shows its new certificate to the gateway too' \
    serves notifications "$(thumbprint host-server-2)"
handed=$(wc -l <load.handed-in)
until_true 'bills come in still' handed_in $((handed + 5))
rm loading
wait "${processes[load]}"
unset 'processes[load]'
if [ -s load.failed ]; then surprise "requests failed: $(head -n 3 load.failed)"; fi
paid=$(($(wc -l <load.paid) + 1))
[ "$paid" -gt 1 ] || surprise 'nothing was paid under load'
until_true 'every payment has arrived' page_has host-page counts.json "\"paid\":$paid,"
until_true 'every bill is uploaded' page_has host-page counts.json '"waiting":0'
until_true 'every payment is acknowledged' page_has gateway-page counts.json '"unacknowledged":0'
[ "$failed_before" = "$(failures)" ] || surprise "something had to be repeated: $(failures)"
if said gateway refused || said host refused; then surprise 'a connection was refused'; fi
say '' "$(wc -l <load.handed-in) bills and $((paid - 1)) payments, none of which failed or had to be repeated."

heading 'A ticket that is worth nothing any more' \
    'The mapping of ann was made anew while the gateway was away: what was issued before does not count.' \
    'The bill stands still, says so, and goes on when ann signs on again.'
stop gateway
accepted POL-5
sso --profile app-admin --quiet mapping delete PaymentGateway 'WEB\ann' --yes >/dev/null
map_ann
until_true 'the bill stands still' is POL-5 'needs sign-on'
look POL-5 | quoted
start_gateway hard-fail
accepted POL-5
until_true 'the bill is uploaded' is POL-5 uploaded
say 'Handed in again with a new token, it is uploaded.'

heading 'The books' 'As many bills and payments at the gateway as at the host, and nothing that stands still.'
bills=$(($(wc -l <load.handed-in) + 5))
until_true 'the gateway has every bill once' page_has gateway-page counts.json "\"bills\":$bills"
until_true 'the host has every payment once' page_has host-page counts.json "\"paid\":$paid,"
until_true 'the host has every other bill once' \
    page_has host-page counts.json "\"uploaded\":$((bills - paid)),"
say "the gateway: $(page gateway-page counts.json)" "the host:    $(page host-page counts.json)"
sso --profile admin audit list --application PaymentGateway >records
has records ticket.redeem
grep -m 3 'ticket\.' records | quoted
if grep -qF -- "$(cat merchant.password)" records ./*.log; then surprise 'the password is in a log'; fi
stop host
stop gateway
stop lists

printf '\n%sThat was the payment gateway.%s\n' "$bold" "$plain"
