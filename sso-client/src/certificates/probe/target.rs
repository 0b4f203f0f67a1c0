//! The address that is looked at.

use std::{fmt, str::FromStr};

use rustls::pki_types::ServerName;

const FORM: &str = "write HOST:PORT, like sso.corp.example:7400 or [2001:db8::1]:443";

/// `HOST:PORT`, also written as `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

/// Why a text is no address; it says how to write one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}': {problem}")]
pub struct TargetError {
    text: String,
    problem: &'static str,
}

impl Target {
    /// A name or an address, without the brackets of IPv6.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as the name that the server's certificate has to have.
    #[must_use]
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| TargetError { text: text.to_owned(), problem };
        let bare = match text.split_once("://") {
            Some(("https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(_) => return Err(error("only https:// may stand before the host")),
            None => text,
        };
        let (host, port) = bare.rsplit_once(':').ok_or_else(|| error(FORM))?;
        let host = match (host.strip_prefix('['), host.contains(':')) {
            (Some(rest), _) => rest.strip_suffix(']').ok_or_else(|| error(FORM))?,
            (None, true) => {
                return Err(error("an IPv6 address stands in brackets: [ADDRESS]:PORT"));
            }
            (None, false) => host,
        };
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(error("the port is a number from 1 to 65535")),
            Ok(port) => port,
        };
        let server_name = ServerName::try_from(host.to_owned())
            .map_err(|_| error("the host is neither a name nor an address"))?;
        Ok(Self { host: host.to_owned(), port, server_name })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_in_their_forms() {
        for (text, host, port, shown) in [
            ("sso.corp.example:7400", "sso.corp.example", 7400, "sso.corp.example:7400"),
            ("https://sso.corp.example:7400/", "sso.corp.example", 7400, "sso.corp.example:7400"),
            ("127.0.0.1:443", "127.0.0.1", 443, "127.0.0.1:443"),
            ("[::1]:443", "::1", 443, "[::1]:443"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host(), target.port()), (host, port), "{text}");
            assert_eq!(target.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_told_how_to_be_one() {
        for (text, says) in [
            ("sso.corp.example", "write HOST:PORT"),
            ("", "write HOST:PORT"),
            ("http://a:1", "only https://"),
            ("unix:///run/sso.sock", "only https://"),
            ("::1:443", "brackets"),
            ("[::1:443", "write HOST:PORT"),
            ("a:0", "from 1 to 65535"),
            ("a:70000", "from 1 to 65535"),
            ("https://a:1/path", "from 1 to 65535"),
            (":443", "neither a name"),
            ("a b:443", "neither a name"),
            ("user@a:443", "neither a name"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
