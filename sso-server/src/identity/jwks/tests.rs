use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"a",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const RSA: &str = r#"{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}"#;

fn parse(keys: &[&str], allowed: &[Algorithm]) -> Result<KeySet, String> {
    KeySet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes(), allowed)
}

#[test]
fn the_key_says_the_algorithm() {
    use Algorithm as A;
    let of = |key: &str, allowed: &[Algorithm]| {
        parse(&[key], allowed).ok().map(|set| set.find(None).unwrap().algorithm)
    };
    assert_eq!(of(EC, &[A::ES256, A::RS256]), Some(A::ES256));
    assert_eq!(of(EC, &[A::ES384, A::RS256]), None);
    assert_eq!(of(RSA, &[A::ES256, A::RS256]), Some(A::RS256));
    assert_eq!(of(RSA, &[A::RS256, A::PS256]), None, "it does not say which");
    for (alg, allowed, wanted) in [
        ("PS256", vec![A::RS256, A::PS256], Some(A::PS256)),
        ("RS512", vec![A::RS256], None),
        ("HS256", vec![A::RS256], None),
        ("none", vec![A::RS256], None),
        ("ES256", vec![A::ES256, A::RS256], None),
    ] {
        let key = RSA.replace("\"kid\"", &format!("\"alg\":\"{alg}\",\"kid\""));
        assert_eq!(of(&key, &allowed), wanted, "{alg}");
    }
    for other in [
        EC.replace("\"kid\"", "\"use\":\"enc\",\"kid\""),
        EC.replace("\"kid\"", "\"key_ops\":[\"encrypt\"],\"kid\""),
        r#"{"kty":"oct","kid":"s","k":"AAAA","alg":"HS256"}"#.to_owned(),
        r#"{"kty":"oct","kid":"s","k":"AAAA"}"#.to_owned(),
        EC.replace("P-256", "P-999"),
    ] {
        assert_eq!(of(&other, &[A::ES256, A::RS256]), None, "{other}");
    }
}

#[test]
fn keys_are_found_by_their_id() {
    let allowed = [Algorithm::ES256, Algorithm::RS256];
    let two = parse(&[EC, RSA], &allowed).unwrap();
    assert_eq!(two.find(Some("r")).unwrap().algorithm, Algorithm::RS256);
    assert!(two.find(Some("x")).is_none() && two.find(None).is_none());
    let one = parse(&[EC, r#"{"kty":"new","kid":"n"}"#], &allowed).unwrap();
    assert!(one.find(None).is_some() && one.find(Some("n")).is_none());
}

#[test]
fn sets_that_are_none_are_refused() {
    let allowed = [Algorithm::ES256];
    let private = EC.replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"");
    let many = vec![EC; KEYS_MAX + 1];
    for (keys, wanted) in [
        (&[EC, EC][..], "same kid"),
        (&[private.as_str()], "private"),
        (&[], "no public key"),
        (&many, "more than 100"),
    ] {
        let error = parse(keys, &allowed).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    for json in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[}"] {
        assert!(KeySet::parse(json.as_bytes(), &allowed).is_err(), "{json}");
    }
    let deep = format!("{{\"keys\":[{}", "[".repeat(100_000));
    assert!(KeySet::parse(deep.as_bytes(), &allowed).is_err());
}

#[test]
fn addresses_are_https_or_on_this_machine() {
    let ca = Some(TrustSettings::new("/ca.pem"));
    assert!(KeyPlace::web("https://id.example/jwks", ca.clone(), false).is_ok());
    for url in ["http://127.0.0.1:1/jwks", "http://[::1]/jwks", "http://localhost:1023/"] {
        assert!(KeyPlace::web(url, None, false).is_ok(), "{url}");
        assert!(KeyPlace::web(url, ca.clone(), false).is_err(), "{url}");
    }
    for url in ["http://127.0.0.1:1024/jwks", "http://[::1]:8080/", "http://localhost:65535/"] {
        assert!(KeyPlace::web(url, None, false).unwrap_err().contains("1024"), "{url}");
        assert!(KeyPlace::web(url, None, true).is_ok(), "{url}");
    }
    for url in [
        "http://id.example/jwks",
        "http://10.0.0.1/",
        "http://127.0.0.1.example/",
        "http://localhost.example/",
        "https://user@id.example/",
        "https://:pass@id.example/",
        "https://id.example/#x",
        "file:///etc/passwd",
        "id.example",
        "",
    ] {
        assert!(KeyPlace::web(url, None, true).is_err(), "{url}");
    }
}

/// Answers every request with these bytes, and counts them.
async fn publish(answer: String) -> (Arc<KeySource>, Clock, Arc<AtomicUsize>) {
    publish_after(answer, Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))).await
}

/// Answers as many requests as there are permits; further ones wait for more.
async fn publish_after(
    answer: String,
    permits: Arc<Semaphore>,
) -> (Arc<KeySource>, Clock, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = tcp.read(&mut [0; 4096]).await;
            permits.acquire().await.unwrap().forget();
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    let clock = Clock::manual(time::OffsetDateTime::UNIX_EPOCH);
    let place = KeyPlace::web(&url, None, true).unwrap();
    let source = KeySource::new(place, vec![Algorithm::ES256], clock.clone()).unwrap();
    (source, clock, count)
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn tokens_of_strangers_fetch_the_keys_once_a_minute() {
    let (source, clock, count) = publish(answer("200 OK", &format!("{{\"keys\":[{EC}]}}"))).await;
    let none = source.current();
    let (first, second) = tokio::join!(source.look_again(&none), source.look_again(&none));
    assert!(first.find(Some("a")).is_some() && second.find(Some("a")).is_some());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // That brought keys; the next does not, and is the last for a minute.
    for fetched in [2, 3] {
        for _ in 0..10 {
            let _ = source.look_again(&source.current()).await;
        }
        assert_eq!(count.load(Ordering::SeqCst), fetched);
        clock.advance(ON_DEMAND);
    }
}

#[tokio::test]
async fn few_requests_wait_while_the_issuer_is_silent() {
    let permits = Arc::new(Semaphore::new(0));
    let set = answer("200 OK", &format!("{{\"keys\":[{EC}]}}"));
    let (source, _, count) = publish_after(set, Arc::clone(&permits)).await;
    let none = source.current();
    let asking: Vec<_> = (0..WAITING_MAX)
        .map(|_| {
            let (source, none) = (Arc::clone(&source), Arc::clone(&none));
            tokio::spawn(async move { source.look_again(&none).await })
        })
        .collect();
    while source.waiting.available_permits() > 0 || count.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // The next ones are not kept waiting.
    for _ in 0..100 {
        let at_once = tokio::time::timeout(FETCH / 5, source.look_again(&none)).await;
        assert!(at_once.unwrap().find(Some("a")).is_none());
    }
    permits.add_permits(1);
    for asked in asking {
        assert!(asked.await.unwrap().find(Some("a")).is_some());
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_look_that_is_given_up_counts() {
    let permits = Arc::new(Semaphore::new(0));
    let (source, clock, count) = publish_after(answer("200 OK", "{}"), permits).await;
    let none = source.current();
    tokio::select! {
        _ = source.look_again(&none) => panic!("nothing was answered"),
        () = async {
            while count.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    let _ = tokio::time::timeout(FETCH / 5, source.look_again(&none)).await.unwrap();
    assert!(source.is_quiet());
    clock.advance(ON_DEMAND);
    assert!(!source.is_quiet());
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    fs::write(&path, format!("{{\"keys\":[{EC}]}}")).unwrap();
    for (mode, good) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let source =
            KeySource::new(KeyPlace::File(path.clone()), vec![Algorithm::ES256], Clock::System);
        match source {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(error) => assert!(!good && error.contains("chmod go-w"), "{mode:o}: {error}"),
        }
    }
}

#[tokio::test]
async fn only_a_key_set_of_bounded_size_is_taken_from_there() {
    let set = format!("{{\"keys\":[{EC}]}}");
    for wrong in [
        answer("302 Found\r\nlocation: /elsewhere", &set),
        answer("404 Not Found", &set),
        answer("200 OK", &format!("{set}{}", " ".repeat(SET_MAX))),
        answer("200 OK", "{}"),
        "nonsense".to_owned(),
    ] {
        let (source, _, count) = publish(wrong).await;
        assert!(!source.refresh().await);
        assert!(source.current().find(None).is_none());
        assert_eq!(count.load(Ordering::SeqCst), 1, "asked once, at the one address");
    }
}
