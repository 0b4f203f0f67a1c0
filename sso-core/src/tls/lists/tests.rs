//! Lists that are none, lists that were damaged, and what a good one says.

use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;

use super::*;
use crate::tls::{
    settings::TrustSettings,
    sources::{Signers, Sources},
};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    roots: RootCertStore,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    Authority { issuer, roots }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

impl Authority {
    fn list(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 2, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 2, 1),
            next_update: date_time_ymd(2200, 2, 1),
            crl_number: SerialNumber::from(7_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    fn key(&self) -> &[u8] {
        &self.roots.roots[0].subject_public_key_info
    }
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(authority);
static LIST: LazyLock<Vec<u8>> = LazyLock::new(|| AUTHORITY.list(&[3, 300, 70_000]));

fn source() -> ListSource {
    ListSource::Url("http://pki.example/ca.crl".into())
}

fn parse(content: &[u8]) -> Result<Vec<Arc<RevocationList>>, ListProblem> {
    parse_lists(&source(), content, ANSWERED_MAX)
}

fn pem(der: &[u8]) -> String {
    encode_string("X509 CRL", LineEnding::LF, der).unwrap()
}

#[test]
fn a_list_is_read_in_both_forms() {
    let text = pem(&LIST);
    for content in [LIST.as_slice(), text.as_bytes(), format!("words\n{text}").as_bytes()] {
        let lists = parse(content).unwrap();
        let [list] = lists.as_slice() else { panic!("{lists:?}") };
        assert_eq!(list.issuer, "CN=rcgen self signed cert");
        assert_eq!(list.this_update, date_time_ymd(2020, 2, 1));
        assert_eq!(list.next_update, date_time_ymd(2200, 2, 1));
        assert_eq!(list.revoked.len(), 3);
        assert!(list.is_signed_by(AUTHORITY.key(), algorithms()));
        assert!(!list.is_signed_by(authority().key(), algorithms()));
        assert_eq!(list.known_signers(), [AUTHORITY.key()]);
    }
    assert_eq!(parse((pem(&LIST) + &pem(&LIST)).as_bytes()).unwrap().len(), 2);
}

#[test]
fn the_size_is_bounded() {
    let most = usize::try_from(LIST_MAX).unwrap();
    let ListProblem(problem) = parse(&vec![b' '; most + 1]).unwrap_err();
    assert_eq!(problem, "is larger than 64 MiB");
}

#[test]
fn the_number_is_bounded() {
    let most = pem(&LIST).repeat(ANSWERED_MAX);
    assert_eq!(parse(most.as_bytes()).unwrap().len(), ANSWERED_MAX);
    let ListProblem(problem) = parse((most + &pem(&LIST)).as_bytes()).unwrap_err();
    assert_eq!(problem, "holds more than 16 lists");
}

#[test]
fn many_strange_keys_do_not_push_the_right_one_out() {
    let list = RevocationList::parse(source(), &LIST).unwrap();
    assert!(list.is_signed_by(AUTHORITY.key(), algorithms()));
    for number in 0..1000_u32 {
        assert!(!list.is_signed_by(&number.to_be_bytes(), algorithms()));
    }
    assert_eq!(list.known_signers(), [AUTHORITY.key()]);
    assert!(list.signers().len() <= SIGNERS_MAX);
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(parse(&bytes).is_err());
        prop_assert!(parse(&[&[SEQUENCE], bytes.as_slice()].concat()).is_err());
        prop_assert!(parse(pem(&bytes).as_bytes()).is_err());
        let _ = Element::read(&bytes);
        let _ = Head::read(&bytes);
        let _ = Scope::read(&bytes);
    }

    #[test]
    fn text_is_refused_and_never_panics(text in "(-----(BEGIN|END) [A-Z0-9 ]{0,12}-----|[A-Za-z0-9+/=]{0,70}|\n){0,12}") {
        prop_assert!(parse(text.as_bytes()).is_err());
    }

    #[test]
    fn a_damaged_list_is_refused_or_nobodys(at in any::<prop::sample::Index>(), with in 1_u8..=255) {
        let mut bytes = LIST.clone();
        let position = at.index(bytes.len());
        bytes[position] ^= with;
        if let Ok(lists) = parse(&bytes) {
            prop_assert!(lists.iter().all(|it| !it.is_signed_by(AUTHORITY.key(), algorithms())));
        }
    }

    #[test]
    fn a_cut_or_longer_list_is_refused(cut in any::<prop::sample::Index>(), more in 1_usize..9) {
        prop_assert!(parse(&LIST[..cut.index(LIST.len())]).is_err());
        prop_assert!(parse(&[LIST.as_slice(), &vec![0; more]].concat()).is_err());
    }

    /// The library's own reading is the measure.
    #[test]
    fn exactly_the_listed_numbers_are_revoked(serials in proptest::collection::btree_set(any::<u64>(), 0..20), other in any::<u64>()) {
        let serials: Vec<u64> = serials.into_iter().collect();
        let der = AUTHORITY.list(&serials);
        let list = RevocationList::parse(source(), &der).unwrap();
        let strict = CertRevocationList::from(BorrowedCertRevocationList::from_der(&der).unwrap());
        for serial in serials.iter().chain([&other]) {
            // The shortest form of a positive number.
            let bytes = [&[0], serial.to_be_bytes().as_slice()].concat();
            let zeros = bytes.windows(2).take_while(|it| it[0] == 0 && it[1] < 0x80).count();
            let encoded = bytes[zeros..].to_vec();
            let known = strict.find_serial(&encoded).unwrap().is_some();
            prop_assert_eq!(list.revoked.contains(encoded.as_slice()), known);
            prop_assert!(known || !serials.contains(serial));
        }
    }

    /// Whatever a distribution point answers, in whatever order: nothing panics, and what the authority
    /// said last stays known.
    #[test]
    fn no_answer_takes_a_good_list_away(
        answers in proptest::collection::vec(
            prop_oneof![
                Just(Err("away".to_owned())),
                proptest::collection::vec(any::<u8>(), 0..80).prop_map(Ok),
                any::<prop::sample::Index>().prop_map(|cut| Ok(LIST[..cut.index(LIST.len())].to_vec())),
                Just(Ok(authority().list(&[]))),
                Just(Ok(pem(&LIST).into_bytes())),
            ],
            0..12,
        )
    ) {
        let settings = TrustSettings {
            crl: vec![source()],
            ..TrustSettings::new("ca.crt")
        };
        let now = date_time_ymd(2024, 1, 1);
        let sources = Sources::new(&settings, now);
        let signers = Signers { roots: &AUTHORITY.roots, algorithms: algorithms() };
        let url = source().to_string();
        let take = |content: Result<Vec<u8>, String>, instant| {
            let came = content.and_then(|it| parse(&it).map_err(|ListProblem(words)| words));
            sources.take(&url, came, signers, (now, instant))
        };
        prop_assert!(take(Ok(LIST.clone()), std::time::Duration::ZERO));
        for (number, answer) in answers.into_iter().enumerate() {
            let instant = std::time::Duration::from_secs(number as u64);
            let is_good = answer.as_ref().is_ok_and(|it| parse(it).is_ok_and(|it| !signers.disown(&it[0])));
            prop_assert!(!take(answer, instant));
            prop_assert_eq!(sources.problems().is_empty(), is_good);
            let lists = sources.lists();
            prop_assert!(lists.iter().any(|it| it.der == *LIST));
            // There is a next time, and not at once.
            prop_assert!(sources.due(instant).is_empty());
            prop_assert_eq!(sources.due(instant + std::time::Duration::from_secs(3600)), [url.clone()]);
        }
    }
}
