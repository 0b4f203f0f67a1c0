//! The service, its certificates and the gate in front of it.

pub(crate) mod live;
pub(crate) mod secret;
pub(crate) mod sign_on;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use sso_client::{
    Client, Profile,
    certificates::{Authority, Request as CertificateRequest, Role},
    v1::{
        self, ConfigurationChange,
        access_server::AccessServer,
        applications_server::{Applications, ApplicationsServer},
        config_store_server::{ConfigStore, ConfigStoreServer},
        lookup_server::LookupServer,
        mappings_server::MappingsServer,
        secret_server::SecretServer,
        system_server::{System, SystemServer},
        tickets_server::TicketsServer,
    },
};
use sso_core::{
    acceptor::{AcceptLimits, mtls_incoming},
    clock::Clock,
    tls::{TlsReloader, TlsSettings},
};
use sso_proto::{Reason, Refusal};
use tempfile::TempDir;
use time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

/// What the service answers to every call of its kind until it is told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    Good,
    Refuse(Reason),
    Never,
}

/// What happened, and what is to happen.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) answer: Mutex<Answer>,
    /// Calls that reached a handler.
    pub(crate) calls: AtomicUsize,
    /// Connections that reached the gate.
    pub(crate) connections: AtomicUsize,
    /// So many further connections are cut at once.
    pub(crate) cut: AtomicUsize,
    /// What each subscription of a watch gets before it is cut off.
    pub(crate) watches: Mutex<Vec<Vec<ConfigurationChange>>>,
    /// The last values that were written.
    pub(crate) written: Mutex<Option<v1::SetConfigurationRequest>>,
    /// The last changes of applications and of the system.
    pub(crate) application: Mutex<Option<v1::Application>>,
    pub(crate) updated: Mutex<Option<v1::UpdateApplicationRequest>>,
    pub(crate) info: Mutex<Option<v1::UpdateGlobalInfoRequest>>,
    pub(crate) server: Mutex<Option<v1::UpdateServerSettingsRequest>>,
    pub(crate) asked: sign_on::Asked,
    /// Takes the place of the configuration and its watches, once a test has set it.
    pub(crate) live: live::Live,
    pub(crate) secret: secret::Master,
    /// What a check of the sealed rows comes to.
    pub(crate) checked: Mutex<Vec<v1::CheckSealedRowsResponse>>,
}

/// A running service. Dropping it ends it.
pub(crate) struct Fake {
    pub(crate) state: Arc<State>,
    pub(crate) folder: TempDir,
    addr: SocketAddr,
    shutdown: CancellationToken,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        issue(folder.path(), "server", "client");
        let state = Arc::new(State::default());
        let shutdown = CancellationToken::new();
        let backend = serve(folder.path(), state.clone(), shutdown.clone()).await;
        let addr = gate(backend, state.clone(), shutdown.clone()).await;
        let profiles = format!(
            "version = 1\ndefault = \"test\"\n[profile.test]\naddr = \"https://{addr}\"\n\
             ca = \"ca.crt\"\ncert = \"client.crt\"\nkey = \"client.key\"\n\
             master = \"https://{addr}\"\n"
        );
        std::fs::write(folder.path().join("profiles.toml"), profiles).unwrap();
        Self { state, folder, addr, shutdown }
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn cut(&self, connections: usize) {
        self.state.cut.store(connections, Ordering::SeqCst);
    }

    pub(crate) fn profile(&self) -> Profile {
        let file = |name| self.folder.path().join(name);
        Profile::new(
            format!("https://{}", self.addr),
            file("ca.crt"),
            file("client.crt"),
            file("client.key"),
        )
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.profile()).unwrap()
    }
}

/// An authority with a certificate for the server and one for the client.
pub(crate) fn issue(folder: &Path, server: &str, client: &str) {
    let now = Clock::System.now();
    let authority =
        Authority::create(&format!("Authority of {server}"), Duration::days(30), false, now)
            .unwrap();
    authority.write(folder, false).unwrap();
    let mut request = CertificateRequest::new(server, Role::Server, Duration::days(1));
    request.addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    authority.issue(&request, now).unwrap().write(folder, server, false).unwrap();
    let mut request = CertificateRequest::new(client, Role::Client, Duration::days(1));
    request.account = Some(r"DEV\test".to_owned());
    authority.issue(&request, now).unwrap().write(folder, client, false).unwrap();
}

async fn serve(folder: &Path, state: Arc<State>, shutdown: CancellationToken) -> SocketAddr {
    let tls = TlsReloader::load(&TlsSettings::new(
        folder.join("server.crt"),
        folder.join("server.key"),
        folder.join("ca.crt"),
    ))
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let incoming = mtls_incoming(listener, tls, AcceptLimits::default(), shutdown.clone());
    let service = Service { state };
    tokio::spawn(
        Server::builder()
            .add_service(SystemServer::new(service.clone()))
            .add_service(ApplicationsServer::new(service.clone()))
            .add_service(ConfigStoreServer::new(service.clone()))
            .add_service(MappingsServer::new(service.clone()))
            .add_service(LookupServer::new(service.clone()))
            .add_service(TicketsServer::new(service.clone()))
            .add_service(SecretServer::new(service.clone()))
            .add_service(AccessServer::new(service))
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()),
    );
    addr
}

/// Passes connections through, except those that are to be cut.
async fn gate(backend: SocketAddr, state: Arc<State>, shutdown: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            state.connections.fetch_add(1, Ordering::SeqCst);
            let one_less = |left: usize| left.checked_sub(1);
            if state.cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                continue;
            }
            tokio::spawn(async move {
                let mut server = TcpStream::connect(backend).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    }));
    addr
}

#[derive(Clone)]
struct Service {
    state: Arc<State>,
}

impl Service {
    async fn reply<T>(&self, good: T) -> Result<Response<T>, Status> {
        self.state.calls.fetch_add(1, Ordering::SeqCst);
        let answer = *self.state.answer.lock().unwrap();
        match answer {
            Answer::Good => Ok(Response::new(good)),
            Answer::Refuse(reason) => Err(Refusal::new(reason, "refused by the test").into()),
            Answer::Never => std::future::pending().await,
        }
    }
}

/// A method that no test calls.
fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of the fake"))
}

/// "Mainframe" and "Terminal" are individual, "Hosts" is a host group, every other a config store.
fn application(name: &str) -> v1::Application {
    use v1::ApplicationType as Type;
    let field = |ordinal, label: &str, masked| v1::Field {
        ordinal,
        label: label.into(),
        masked,
        ..Default::default()
    };
    let host = [field(0, "User", false), field(1, "Password", true), field(2, "Group", false)];
    let store = [field(0, "reserved", false), field(1, "Url", false), field(2, "ApiKey", true)];
    let (kind, fields) = match name {
        "Mainframe" => (Type::Individual, host.to_vec()),
        "Terminal" => (Type::Individual, host[..2].to_vec()),
        "Hosts" => (Type::HostGroup, host.to_vec()),
        _ => (Type::ConfigStore, store.to_vec()),
    };
    v1::Application {
        name: name.to_owned(),
        r#type: kind.into(),
        fields,
        enabled: true,
        ..Default::default()
    }
}

pub(crate) fn tls_status() -> v1::TlsStatus {
    v1::TlsStatus {
        number: 2,
        minimum_version: "1.3".into(),
        revocation: v1::RevocationPolicy::HardFail.into(),
        certificates: vec![v1::TlsCertificate {
            role: v1::TlsCertificateRole::Own.into(),
            subject: "CN=fake".into(),
            thumbprint_sha256: "ab12".into(),
            ..Default::default()
        }],
        warnings: vec!["the certificate CN=fake ends in 5 days".into()],
        ..Default::default()
    }
}

#[tonic::async_trait]
impl System for Service {
    type CheckSealedRowsStream =
        Pin<Box<dyn Stream<Item = Result<v1::CheckSealedRowsResponse, Status>> + Send>>;

    async fn begin_sealed_rows_check(
        &self,
        _: Request<v1::BeginSealedRowsCheckRequest>,
    ) -> Result<Response<v1::BeginSealedRowsCheckResponse>, Status> {
        let (check, recipient_key) = ("check-1".to_owned(), vec![9; 32]);
        self.reply(v1::BeginSealedRowsCheckResponse { check, recipient_key }).await
    }

    async fn check_sealed_rows(
        &self,
        request: Request<v1::CheckSealedRowsRequest>,
    ) -> Result<Response<Self::CheckSealedRowsStream>, Status> {
        assert_eq!(request.into_inner().check, "check-1");
        let answers = self.state.checked.lock().unwrap().clone();
        let stream = tokio_stream::iter(answers.into_iter().map(Ok));
        self.reply(Box::pin(stream) as Self::CheckSealedRowsStream).await
    }

    async fn reload_tls(
        &self,
        _: Request<v1::ReloadTlsRequest>,
    ) -> Result<Response<v1::ReloadTlsResponse>, Status> {
        self.reply(v1::ReloadTlsResponse { name: "fake".into(), tls: Some(tls_status()) }).await
    }

    async fn get_server_status(
        &self,
        _: Request<v1::GetServerStatusRequest>,
    ) -> Result<Response<v1::GetServerStatusResponse>, Status> {
        let server = "fake".to_owned();
        self.reply(v1::GetServerStatusResponse { server, ..Default::default() }).await
    }

    async fn enable(
        &self,
        _: Request<v1::EnableSystemRequest>,
    ) -> Result<Response<v1::EnableSystemResponse>, Status> {
        self.reply(v1::EnableSystemResponse {}).await
    }

    async fn disable(
        &self,
        _: Request<v1::DisableSystemRequest>,
    ) -> Result<Response<v1::DisableSystemResponse>, Status> {
        absent()
    }

    async fn get_global_info(
        &self,
        _: Request<v1::GetGlobalInfoRequest>,
    ) -> Result<Response<v1::GetGlobalInfoResponse>, Status> {
        absent()
    }

    async fn update_global_info(
        &self,
        request: Request<v1::UpdateGlobalInfoRequest>,
    ) -> Result<Response<v1::UpdateGlobalInfoResponse>, Status> {
        let request = request.into_inner();
        let global_info = request.global_info.clone();
        *self.state.info.lock().unwrap() = Some(request);
        self.reply(v1::UpdateGlobalInfoResponse { global_info }).await
    }

    async fn get_server_settings(
        &self,
        _: Request<v1::GetServerSettingsRequest>,
    ) -> Result<Response<v1::GetServerSettingsResponse>, Status> {
        let settings = v1::ServerSettings { remote_lookup: true, ..Default::default() };
        let server = "fake".to_owned();
        self.reply(v1::GetServerSettingsResponse { server, settings: Some(settings) }).await
    }

    async fn update_server_settings(
        &self,
        request: Request<v1::UpdateServerSettingsRequest>,
    ) -> Result<Response<v1::UpdateServerSettingsResponse>, Status> {
        let request = request.into_inner();
        let (server, settings) = (request.server.clone(), request.settings);
        *self.state.server.lock().unwrap() = Some(request);
        self.reply(v1::UpdateServerSettingsResponse { server, settings }).await
    }

    async fn list_servers(
        &self,
        _: Request<v1::ListServersRequest>,
    ) -> Result<Response<v1::ListServersResponse>, Status> {
        absent()
    }
}

#[tonic::async_trait]
impl Applications for Service {
    /// Refuses names that start with "Bad".
    async fn create(
        &self,
        request: Request<v1::CreateApplicationRequest>,
    ) -> Result<Response<v1::CreateApplicationResponse>, Status> {
        let application = request.into_inner().application.unwrap_or_default();
        if application.name.starts_with("Bad") {
            return Err(Refusal::new(Reason::ApplicationExists, "it exists").into());
        }
        *self.state.application.lock().unwrap() = Some(application.clone());
        let application = Some(application);
        self.reply(v1::CreateApplicationResponse { application, ..Default::default() }).await
    }

    async fn get(
        &self,
        request: Request<v1::GetApplicationRequest>,
    ) -> Result<Response<v1::GetApplicationResponse>, Status> {
        let application = Some(application(&request.into_inner().name));
        self.reply(v1::GetApplicationResponse { application }).await
    }

    /// 250 applications, in pages of 100 at most.
    async fn list(
        &self,
        request: Request<v1::ListApplicationsRequest>,
    ) -> Result<Response<v1::ListApplicationsResponse>, Status> {
        let first: usize = request.into_inner().page_token.parse().unwrap_or_default();
        let last = (first + 100).min(250);
        let applications = (first..last).map(|number| application(&format!("App{number}")));
        let next_page_token = if last < 250 { last.to_string() } else { String::new() };
        let applications = applications.collect();
        self.reply(v1::ListApplicationsResponse { applications, next_page_token }).await
    }

    async fn update(
        &self,
        request: Request<v1::UpdateApplicationRequest>,
    ) -> Result<Response<v1::UpdateApplicationResponse>, Status> {
        let request = request.into_inner();
        let application = request.application.clone();
        *self.state.updated.lock().unwrap() = Some(request);
        self.reply(v1::UpdateApplicationResponse { application, ..Default::default() }).await
    }

    async fn enable(
        &self,
        _: Request<v1::EnableApplicationRequest>,
    ) -> Result<Response<v1::EnableApplicationResponse>, Status> {
        absent()
    }

    async fn disable(
        &self,
        _: Request<v1::DisableApplicationRequest>,
    ) -> Result<Response<v1::DisableApplicationResponse>, Status> {
        absent()
    }

    async fn delete(
        &self,
        _: Request<v1::DeleteApplicationRequest>,
    ) -> Result<Response<v1::DeleteApplicationResponse>, Status> {
        self.reply(v1::DeleteApplicationResponse { existed: false }).await
    }

    async fn add_field(
        &self,
        _: Request<v1::AddFieldRequest>,
    ) -> Result<Response<v1::AddFieldResponse>, Status> {
        absent()
    }

    async fn purge_cache(
        &self,
        _: Request<v1::PurgeCacheRequest>,
    ) -> Result<Response<v1::PurgeCacheResponse>, Status> {
        self.reply(v1::PurgeCacheResponse {}).await
    }
}

#[tonic::async_trait]
impl ConfigStore for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<ConfigurationChange, Status>> + Send>>;

    async fn set(
        &self,
        request: Request<v1::SetConfigurationRequest>,
    ) -> Result<Response<v1::SetConfigurationResponse>, Status> {
        let request = request.into_inner();
        let mut written: Vec<_> = request.values.keys().cloned().collect();
        written.sort();
        *self.state.written.lock().unwrap() = Some(request);
        let answer = v1::SetConfigurationResponse { revision: 1, written, ..Default::default() };
        self.reply(answer).await
    }

    async fn get(
        &self,
        request: Request<v1::GetConfigurationRequest>,
    ) -> Result<Response<v1::GetConfigurationResponse>, Status> {
        let request = request.into_inner();
        if self.state.live.is_used() {
            let configuration = Some(self.state.live.configuration(request)?);
            return self.reply(v1::GetConfigurationResponse { configuration }).await;
        }
        let reveal = request.mode == i32::from(v1::ReadMode::Runtime);
        let mut values = HashMap::from([("Url".to_owned(), "https://x/\u{e4}\n".to_owned())]);
        if reveal {
            values.insert("ApiKey".to_owned(), "secret-0815".to_owned());
        }
        let wanted = |label: &str| {
            request.fields.is_empty() || request.fields.iter().any(|field| field == label)
        };
        values.retain(|label, _| wanted(label));
        let masked = if !reveal && wanted("ApiKey") { vec!["ApiKey".to_owned()] } else { vec![] };
        let configuration = Some(v1::Configuration {
            application: request.application,
            identifier: request.identifier,
            revision: 4,
            values,
            masked,
            ..Default::default()
        });
        self.reply(v1::GetConfigurationResponse { configuration }).await
    }

    async fn watch(
        &self,
        _: Request<v1::WatchConfigurationsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if self.state.live.is_used() {
            return self.reply(self.state.live.changes()).await;
        }
        let changes = {
            let mut watches = self.state.watches.lock().unwrap();
            if watches.is_empty() { Vec::new() } else { watches.remove(0) }
        };
        let end = tokio_stream::once(Err(Status::unavailable("going down")));
        let stream = tokio_stream::iter(changes.into_iter().map(Ok)).chain(end);
        self.reply(Box::pin(stream) as Self::WatchStream).await
    }

    async fn batch_get(
        &self,
        _: Request<v1::BatchGetConfigurationsRequest>,
    ) -> Result<Response<v1::BatchGetConfigurationsResponse>, Status> {
        absent()
    }

    async fn delete(
        &self,
        _: Request<v1::DeleteConfigurationRequest>,
    ) -> Result<Response<v1::DeleteConfigurationResponse>, Status> {
        absent()
    }

    async fn list_identifiers(
        &self,
        _: Request<v1::ListIdentifiersRequest>,
    ) -> Result<Response<v1::ListIdentifiersResponse>, Status> {
        absent()
    }

    async fn history(
        &self,
        _: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        absent()
    }

    async fn rollback(
        &self,
        _: Request<v1::RollbackConfigurationRequest>,
    ) -> Result<Response<v1::RollbackConfigurationResponse>, Status> {
        absent()
    }
}
