//! A distribution point: serves the revocation lists of an authority over plain HTTP, as the lists are
//! signed and public.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing,
};
use sso_core::shutdown::Shutdown;
use tokio::net::TcpListener;

use crate::Stopped;

const GRACE: Duration = Duration::from_secs(2);

/// Serves the files `*.crl` of the folder at `http://ADDRESS/NAME.crl` until SIGTERM or SIGINT.
///
/// # Errors
/// The address cannot be listened on.
pub async fn publish(listen: SocketAddr, folder: &Path) -> Result<(), Stopped> {
    let shutdown = Shutdown::install(GRACE).map_err(Stopped::refused)?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| Stopped::unavailable(format!("{listen}: {error}")))?;
    tracing::info!(%listen, folder = %folder.display(), "revocation lists are published");
    let router = Router::new().route("/{name}", routing::get(list)).with_state(Arc::from(folder));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.draining().cancelled_owned())
        .await
        .map_err(Stopped::unavailable)
}

async fn list(State(folder): State<Arc<Path>>, UrlPath(name): UrlPath<String>) -> Response {
    let Some(path) = inside(&folder, &name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match tokio::fs::read(path).await {
        Ok(content) => ([(header::CONTENT_TYPE, "application/pkix-crl")], content).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The file of this name; `None` for what leads elsewhere or is no list.
fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let stem = name.strip_suffix(".crl")?;
    (!stem.is_empty() && stem.chars().all(plain)).then(|| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_are_published() {
        let folder = Path::new("/lists");
        assert_eq!(inside(folder, "ca.crl"), Some(PathBuf::from("/lists/ca.crl")));
        for name in ["", ".crl", "ca.key", "../ca.crl", "a/b.crl", "a..crl", "ca.crl\0"] {
            assert_eq!(inside(folder, name), None, "{name}");
        }
    }
}
