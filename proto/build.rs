//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "sso/v1/access.proto",
    "sso/v1/applications.proto",
    "sso/v1/audit.proto",
    "sso/v1/config_store.proto",
    "sso/v1/lookup.proto",
    "sso/v1/mappings.proto",
    "sso/v1/master.proto",
    "sso/v1/principals.proto",
    "sso/v1/secret.proto",
    "sso/v1/system.proto",
    "sso/v1/tickets.proto",
    "sso/v1/tls.proto",
];

/// Messages that carry a secret: no derived `Debug`, wiped when dropped.
const SECRET: &[&str] = &[
    "sso.v1.NewValue",
    "sso.v1.GenerationKey",
    "sso.v1.CredentialValues",
    "sso.v1.Ticket",
    "sso.v1.UserToken",
    "sso.v1.Assertion",
    "sso.v1.BackupOpener",
];

/// Messages that contain secrets in a map or another message: no derived `Debug`.
const REDACTED: &[&str] = &[
    "sso.v1.Configuration",
    "sso.v1.SetConfigurationRequest",
    "sso.v1.BackupLocks",
    "sso.v1.PrepareResponse",
    "sso.v1.BackupResponse",
];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script where to write")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=sso");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("sso_descriptor.bin"), descriptors.encode_to_vec())?;

    let mut builder = tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .skip_debug(SECRET.iter().chain(REDACTED).copied());
    for message in SECRET {
        builder = builder
            .message_attribute(message, "#[derive(::zeroize::Zeroize, ::zeroize::ZeroizeOnDrop)]");
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
