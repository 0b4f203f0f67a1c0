//! Certificates in the order of who issued whom.

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{Description, PrivateKey};

/// More certificates than this are not arranged: nobody sends so many in good faith.
const MOST: usize = 128;
/// Signatures checked for one tree. Names that repeat a hundred times must not cost thousands of them.
const MOST_CHECKS: usize = 512;

/// Where a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// An authority that signed its own certificate.
    Root,
    /// An authority below another one.
    Intermediate,
    /// Issues nothing.
    Leaf,
}

/// What is known about who signed a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// By the certificate above it (a root by itself), and the signature holds.
    Good,
    /// By an algorithm that this product does not check.
    NotChecked,
    /// Its issuer is not among the certificates.
    IssuerMissing,
}

/// One certificate of a [`Tree`].
#[derive(Clone, Debug, Serialize)]
pub struct TreeEntry {
    /// Where it stands.
    pub position: Position,
    /// 0 for the top; its issuer is the nearest entry before it with one less.
    pub depth: usize,
    /// Who signed it.
    pub signature: Signature,
    /// Where the matching private key is, in words such as `tls/gateway.key`; `None`: not known.
    pub private_key: Option<String>,
    /// What it says.
    #[serde(flatten)]
    pub certificate: Description,
    /// Which of the given certificates it is.
    #[serde(skip)]
    pub index: usize,
}

/// Certificates, each behind the one that issued it: root → intermediate → leaf.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tree {
    /// From the top downwards.
    pub certificates: Vec<TreeEntry>,
    /// What could not be read as a certificate, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

impl Tree {
    /// Arranges certificates that come in any order. Nothing is trusted by it: a tree can be built from
    /// what a stranger sent. Never fails; what cannot be read is in [`Tree::unreadable`]. Copies of a
    /// certificate count once.
    #[must_use]
    pub fn build(certificates: &[CertificateDer<'_>]) -> Self {
        let mut unreadable = Vec::new();
        let mut known: Vec<Known<'_>> = Vec::new();
        for (index, der) in certificates.iter().enumerate().take(MOST) {
            if known.iter().any(|other| other.der == der.as_ref()) {
                continue;
            }
            match (Description::read(der), X509Certificate::from_der(der)) {
                (Ok(description), Ok((_, parsed))) => {
                    known.push(Known { index, der: der.as_ref(), description, parsed });
                }
                (Err(what), _) => unreadable.push(format!("certificate {}: {what}", index + 1)),
                (Ok(_), Err(error)) => {
                    unreadable.push(format!("certificate {}: {error}", index + 1));
                }
            }
        }
        if certificates.len() > MOST {
            let rest = certificates.len() - MOST;
            unreadable.push(format!("{rest} more certificates, which are not looked at"));
        }
        let mut checks = MOST_CHECKS;
        let links: Vec<_> = (0..known.len()).map(|at| link(&known, at, &mut checks)).collect();
        let mut tree = Self { certificates: Vec::with_capacity(known.len()), unreadable };
        let mut placed = vec![false; known.len()];
        for at in (0..known.len()).filter(|&at| links.get(at).is_some_and(|it| it.issuer.is_none()))
        {
            tree.place(&known, &links, &mut placed, (at, 0));
        }
        // Authorities that vouch for each other in a ring have no top: any of them is as good.
        for at in 0..known.len() {
            tree.place(&known, &links, &mut placed, (at, 0));
        }
        tree
    }

    /// The leaf: the first of the given certificates that issues nothing, else the first of all.
    #[must_use]
    pub fn leaf(&self) -> Option<&TreeEntry> {
        let given = |entry: &&TreeEntry| entry.index;
        let leaves = self.certificates.iter().filter(|entry| entry.position == Position::Leaf);
        leaves.min_by_key(given).or_else(|| self.certificates.iter().min_by_key(given))
    }

    /// Notes at every certificate with this key where the key is. Gives whether there is one.
    pub fn mark_key(&mut self, key: &PrivateKey, place: &str) -> bool {
        let public = key.public_key();
        let mut found = false;
        for entry in self.certificates.iter_mut().filter(|it| it.certificate.has_public_key(public))
        {
            entry.private_key = Some(place.to_owned());
            found = true;
        }
        found
    }

    fn place(
        &mut self,
        known: &[Known<'_>],
        links: &[Link],
        placed: &mut [bool],
        (at, depth): (usize, usize),
    ) {
        let (Some(one), Some(link), Some(done)) =
            (known.get(at), links.get(at), placed.get_mut(at))
        else {
            return;
        };
        if std::mem::replace(done, true) {
            return;
        }
        self.certificates.push(TreeEntry {
            position: link.position,
            depth,
            signature: link.signature,
            private_key: None,
            certificate: one.description.clone(),
            index: one.index,
        });
        for (below, link) in links.iter().enumerate() {
            if link.issuer == Some(at) {
                self.place(known, links, placed, (below, depth + 1));
            }
        }
    }
}

struct Known<'d> {
    index: usize,
    der: &'d [u8],
    description: Description,
    parsed: X509Certificate<'d>,
}

struct Link {
    issuer: Option<usize>,
    signature: Signature,
    position: Position,
}

fn link(known: &[Known<'_>], at: usize, checks: &mut usize) -> Link {
    let top = |signature, position| Link { issuer: None, signature, position };
    let Some(one) = known.get(at) else {
        return top(Signature::IssuerMissing, Position::Leaf);
    };
    let position = match one.description.authority {
        true => Position::Intermediate,
        false => Position::Leaf,
    };
    if one.description.is_self_issued()
        && let Some(signature) = signed_by(one, one, checks)
    {
        let root = if one.description.authority { Position::Root } else { Position::Leaf };
        return top(signature, root);
    }
    let mut unchecked = None;
    for (other, issuer) in known.iter().enumerate() {
        if other == at || !one.description.is_issued_by(&issuer.description) {
            continue;
        }
        match signed_by(one, issuer, checks) {
            Some(Signature::Good) => {
                return Link { issuer: Some(other), signature: Signature::Good, position };
            }
            Some(Signature::NotChecked | Signature::IssuerMissing) => {
                unchecked = unchecked.or(Some(other));
            }
            None => {}
        }
    }
    match unchecked {
        Some(other) => Link { issuer: Some(other), signature: Signature::NotChecked, position },
        None => top(Signature::IssuerMissing, position),
    }
}

/// Whether the signature holds; `None` when it does not.
fn signed_by(one: &Known<'_>, issuer: &Known<'_>, checks: &mut usize) -> Option<Signature> {
    use x509_parser::error::X509Error;
    let Some(left) = checks.checked_sub(1) else {
        return Some(Signature::NotChecked);
    };
    *checks = left;
    match one.parsed.verify_signature(Some(issuer.parsed.public_key())) {
        Ok(()) => Some(Signature::Good),
        Err(X509Error::SignatureUnsupportedAlgorithm) => Some(Signature::NotChecked),
        // The library refuses to calculate with RSA keys this short.
        Err(_) if issuer.description.has_short_rsa_key() => Some(Signature::NotChecked),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime, macros::datetime};

    use super::*;
    use crate::certificates::{Authority, Bundle, KeyType, Request, Role, pem};

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

    fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
        let sections = pem::sections(pem.as_bytes()).unwrap();
        sections.iter().map(|it| CertificateDer::from(it.content.to_vec())).collect()
    }

    /// Root, intermediate, leaf.
    fn chain() -> [CertificateDer<'static>; 3] {
        let root = Authority::create("Root", Duration::days(3650), false, NOW).unwrap();
        let below =
            root.create_intermediate("Below", KeyType::P384, Duration::days(900), NOW).unwrap();
        let request = Request::new("leaf", Role::Client, Duration::days(30));
        let leaf = below.issue(&request, NOW).unwrap();
        let [leaf, below] = <[_; 2]>::try_from(ders(&leaf.certificate)).unwrap();
        [ders(root.certificate()).remove(0), below, leaf]
    }

    fn shape(tree: &Tree) -> Vec<(Position, usize, Signature)> {
        tree.certificates.iter().map(|it| (it.position, it.depth, it.signature)).collect()
    }

    #[test]
    fn any_order_gives_the_same_tree() {
        let [root, below, leaf] = chain();
        let expected = [
            (Position::Root, 0, Signature::Good),
            (Position::Intermediate, 1, Signature::Good),
            (Position::Leaf, 2, Signature::Good),
        ];
        for order in [
            [&leaf, &below, &root],
            [&root, &below, &leaf],
            [&below, &leaf, &root],
            [&below, &root, &leaf],
        ] {
            // A copy counts once.
            let given: Vec<_> = order.into_iter().chain([&leaf]).cloned().collect();
            let tree = Tree::build(&given);
            assert_eq!(shape(&tree), expected);
            assert_eq!(tree.leaf().unwrap().certificate.subject, "CN=leaf");
        }
    }

    #[test]
    fn what_is_missing_or_foreign_is_not_made_up() {
        let [root, _, leaf] = chain();
        let tree = Tree::build(&[leaf.clone(), root.clone()]);
        assert_eq!(
            shape(&tree),
            [(Position::Leaf, 0, Signature::IssuerMissing), (Position::Root, 0, Signature::Good)]
        );
        // An authority with the same name and another key issued nothing of this.
        let [other_root, other_below, _] = chain();
        let tree = Tree::build(&[other_below, leaf, other_root]);
        assert_eq!(tree.certificates.iter().filter(|it| it.depth == 0).count(), 2, "{tree:?}");
        assert!(Tree::build(&[]).leaf().is_none());
    }

    #[test]
    fn a_key_is_marked_where_it_belongs() {
        let authority = Authority::create("Root", Duration::days(3650), false, NOW).unwrap();
        let request = Request::new("leaf", Role::Client, Duration::days(30));
        let folder = tempfile::tempdir().unwrap();
        let issued = authority.issue(&request, NOW).unwrap();
        let (certificate, key) = issued.write(folder.path(), "leaf", false).unwrap();
        let bundle = Bundle::read(&certificate, None).unwrap();
        let mut tree = Tree::build(&bundle.certificates);
        let key = PrivateKey::read(&key, None).unwrap();
        assert!(tree.mark_key(&key, "leaf.key"));
        assert_eq!(tree.certificates[0].private_key.as_deref(), Some("leaf.key"));
        assert!(!tree.mark_key(&PrivateKey::generate(KeyType::P256).unwrap(), "other.key"));
        let json = serde_json::to_value(&tree).unwrap();
        assert_eq!(json["certificates"][0]["position"], "leaf");
        assert_eq!(json["certificates"][0]["signature"], "issuer-missing");
        assert_eq!(json["certificates"][0]["thumbprint_sha1"].as_str().unwrap().len(), 40);
    }

    #[test]
    fn a_thousand_namesakes_cost_a_bounded_number_of_checks() {
        // The same name over and over, and no key identifiers to tell them apart by.
        let made: Vec<_> = (0..200)
            .map(|_| {
                let key = rcgen::KeyPair::generate().unwrap();
                let mut params = rcgen::CertificateParams::default();
                params.is_ca = rcgen::IsCa::NoCa;
                params.self_signed(&key).unwrap().der().clone()
            })
            .collect();
        let tree = Tree::build(&made);
        assert_eq!(tree.certificates.len(), MOST);
        assert!(tree.unreadable[0].starts_with("72 more"), "{:?}", tree.unreadable);
    }
}
