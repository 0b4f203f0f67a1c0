//! etcd: its own protocol over mutual TLS, by the generator that asks ours.

use std::time::{Duration, Instant};

use prost::Message;
use sso_core::connector::{ConnectOptions, connect_channel};
use tonic::{codegen::http::uri::PathAndQuery, transport::Channel};

use super::{Ask, Identity, Peer, Process, READY_WITHIN, Shape};
use crate::load::{
    accounting::Group,
    call::{NUMBER, Payload, call},
    drive::{Job, Part, Plan},
    round::{Round, SERVER, measure},
};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
/// Answered by the member that is asked, without the others' consent: possibly old.
const SERIALIZABLE: &str = "etcd, serializable";
const LINEARIZABLE: &str = "etcd";
/// Puts at once while it is filled.
const AT_ONCE: u64 = 256;

/// `etcdserverpb.RangeRequest`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

/// `etcdserverpb.PutRequest`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

pub(super) struct Etcd {
    process: Process,
    identity: Identity,
}

impl Etcd {
    pub(super) fn start(identity: &Identity, shape: &Shape) -> Result<Self, String> {
        let tls = &identity.server;
        let process = Process::start("etcd", |port, folder| {
            let url = format!("https://127.0.0.1:{port}");
            let data = folder.path().join("data").display().to_string();
            [
                ("--data-dir", data),
                ("--listen-client-urls", url.clone()),
                ("--advertise-client-urls", url),
                // A member alone needs no peers, and no port that others may have.
                ("--listen-peer-urls", "http://127.0.0.1:0".to_owned()),
                ("--cert-file", tls.certificate.display().to_string()),
                ("--key-file", tls.key.display().to_string()),
                ("--trusted-ca-file", tls.ca.display().to_string()),
                ("--client-cert-auth", "true".to_owned()),
                ("--enable-grpc-gateway", "false".to_owned()),
                ("--quota-backend-bytes", (8_u64 << 30).to_string()),
                ("--log-level", "error".to_owned()),
            ]
            .map(|(name, value)| format!("{name}={value}"))
            .to_vec()
        })
        .map_err(|error| error.to_string())?;
        let etcd = Self { process, identity: identity.clone() };
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        runtime.block_on(etcd.fill(shape))?;
        Ok(etcd)
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.process.port.number())
    }

    fn channel(&self) -> Result<Channel, String> {
        let caller = self.identity.callers.first().ok_or("no caller")?.clone();
        connect_channel(&self.url(), caller, ConnectOptions::default())
            .map_err(|error| error.to_string())
    }

    async fn fill(&self, shape: &Shape) -> Result<(), String> {
        let channel = self.channel()?;
        let begun = Instant::now();
        while let Err(status) = put(&channel, 0, shape.value).await {
            if begun.elapsed() > READY_WITHIN {
                let log = std::fs::read_to_string(self.process.log()).unwrap_or_default();
                return Err(format!("etcd: {status}\n{log}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for first in (0..shape.keys).step_by(usize::try_from(AT_ONCE).unwrap_or(1)) {
            let puts = (first..shape.keys.min(first + AT_ONCE))
                .map(|number| put(&channel, number, shape.value));
            futures_util::future::try_join_all(puts)
                .await
                .map_err(|status| format!("etcd: {status}"))?;
        }
        Ok(())
    }
}

async fn put(channel: &Channel, number: u64, value: usize) -> Result<usize, tonic::Status> {
    let key = format!("C{number:07}").into_bytes();
    let message = PutRequest { key, value: vec![b's'; value] };
    call(channel, &PathAndQuery::from_static(PUT), message.encode_to_vec().into()).await
}

impl Peer for Etcd {
    fn process(&self) -> Group {
        Group::of(SERVER, self.process.child.id())
    }

    fn ways(&self, ask: Ask) -> &'static [&'static str] {
        match ask {
            Ask::Read => &[LINEARIZABLE, SERIALIZABLE],
            Ask::Write => &[LINEARIZABLE],
        }
    }

    fn round(&self, way: &str, ask: Ask, shape: &Shape, groups: &[Group]) -> Result<Round, String> {
        let key = format!("C{NUMBER}").into_bytes();
        let (path, message) = match ask {
            Ask::Read => {
                let message = RangeRequest { key, serializable: way == SERIALIZABLE };
                (RANGE, message.encode_to_vec())
            }
            Ask::Write => (PUT, PutRequest { key, value: vec![b't'; shape.value] }.encode_to_vec()),
        };
        let payload = Payload::numbered(message, shape.keys);
        let part = Part {
            url: self.url(),
            callers: self.identity.callers.clone(),
            connections: shape.connections.min(shape.in_flight),
            in_flight: shape.in_flight,
            jobs: vec![Job { path: PathAndQuery::from_static(path), payload, share: 1 }],
        };
        let threads = shape.threads.min(part.connections);
        let plan = Plan::new(threads, shape.duration, vec![part]);
        measure(|| plan.clone(), groups)
    }
}
