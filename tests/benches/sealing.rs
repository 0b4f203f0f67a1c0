//! What a key for each record costs beside one key for an application, on 512 bytes: the choice that
//! `sso_core::seal` explains.
//!
//! `cargo bench -p sso-tests --bench sealing`

#![expect(clippy::expect_used, reason = "a bench ends where something is not as it has to be")]

use std::hint::black_box;

use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce, aead::AeadInOut as _};
use criterion::{Criterion, criterion_group, criterion_main};
use rand::{TryRng as _, rngs::SysRng};
use sso_core::{
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    seal::Place,
};

const PLAINTEXT: [u8; 512] = [7; 512];

fn sealing(criterion: &mut Criterion) {
    let key = LockedKey::generate().expect("a key");
    let keys = KeyRing::new([(Generation::FIRST, key)], Generation::FIRST).expect("a key ring");
    let place = Place { table: "bench", column: "sealed", row: &[1; 24], application: &[2; 16] };
    let sealed = keys.seal(&place, &PLAINTEXT).expect("sealed");

    // What an application key kept in memory, with a random nonce, would do.
    let cipher = Aes256Gcm::new(&[3; 32].into());
    let mut record = PLAINTEXT.to_vec();
    let nonce = Nonce::from([4; 12]);
    cipher.encrypt_in_place(&nonce, b"place", &mut record).expect("sealed");

    let mut group = criterion.benchmark_group("512 bytes");
    group.bench_function("seal, key for each record", |bench| {
        bench.iter(|| keys.seal(black_box(&place), black_box(&PLAINTEXT)));
    });
    group.bench_function("seal, key for the application", |bench| {
        bench.iter(|| {
            let mut nonce = [0; 12];
            SysRng.try_fill_bytes(&mut nonce).expect("random bytes");
            let mut record = black_box(&PLAINTEXT).to_vec();
            cipher.encrypt_in_place(&Nonce::from(nonce), b"place", &mut record).map(|()| record)
        });
    });
    group.bench_function("open, key for each record", |bench| {
        bench.iter(|| keys.open(black_box(&place), black_box(&sealed)));
    });
    group.bench_function("open, key for the application", |bench| {
        bench.iter(|| {
            let mut record = black_box(&record).clone();
            cipher.decrypt_in_place(&nonce, b"place", &mut record).map(|()| record)
        });
    });
    group.finish();
}

criterion_group!(benches, sealing);
criterion_main!(benches);
