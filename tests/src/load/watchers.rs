//! Many watchers of one configuration, and how long it takes until the last one was told of a change; many
//! connections on which nothing happens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sso_core::connector::{ClientTls, ConnectOptions, connect_channel};
use sso_proto::v1::{self, config_store_client::ConfigStoreClient, system_client::SystemClient};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tonic::transport::Channel;

use super::stand::{STORE, Stand};

/// What all watch.
const IDENTIFIER: &str = "C0000000";
/// The last one has to be told within this.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Handshakes and first calls at once.
const AT_ONCE: usize = 32;

/// Open watches. They end with the value.
pub struct Watchers {
    told: Arc<Told>,
    count: usize,
    running: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    messages: AtomicUsize,
    news: Notify,
}

impl Told {
    async fn reach(&self, messages: usize) -> Result<(), String> {
        let reached = async {
            loop {
                let news = self.news.notified();
                if self.messages.load(Ordering::Acquire) >= messages {
                    return;
                }
                news.await;
            }
        };
        let late = |_| format!("{messages} messages were not told within {TOLD_WITHIN:?}");
        tokio::time::timeout(TOLD_WITHIN, reached).await.map_err(late)
    }
}

impl Watchers {
    /// Opens so many watches over so many connections, and waits until each has been told how things
    /// stand.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn open(stand: &Stand, count: usize, connections: usize) -> Result<Self, String> {
        let channels = channels(stand, connections);
        let told = Arc::new(Told::default());
        let mut opening = JoinSet::new();
        let mut running = Vec::new();
        for number in 0..count {
            if opening.len() >= AT_ONCE {
                running.extend(joined(&mut opening).await?);
            }
            let channel = channels.get(number % channels.len().max(1)).ok_or("no connection")?;
            opening.spawn(watch(channel.clone(), Arc::clone(&told)));
        }
        while !opening.is_empty() {
            running.extend(joined(&mut opening).await?);
        }
        told.reach(count).await?;
        Ok(Self { told, count, running })
    }

    /// How long it takes from the sending of a change until the last watcher was told.
    ///
    /// # Errors
    /// When somebody is not told.
    pub async fn tell(&self, stand: &Stand, number: usize) -> Result<Duration, String> {
        let before = self.told.messages.load(Ordering::Acquire);
        let value = v1::NewValue { value: Some(format!("change {number}")) };
        let message = v1::SetConfigurationRequest {
            application: STORE.into(),
            identifier: IDENTIFIER.into(),
            values: [("Secret".to_owned(), value)].into(),
            ..Default::default()
        };
        let start = Instant::now();
        let _: v1::SetConfigurationResponse =
            stand.ask("app-admin", "ConfigStore/Set", message).await;
        self.told.reach(before + self.count).await?;
        Ok(start.elapsed())
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

async fn joined<T: 'static>(set: &mut JoinSet<Result<T, String>>) -> Result<Option<T>, String> {
    set.join_next().await.map(|done| done.map_err(|error| error.to_string())?).transpose()
}

async fn watch(channel: Channel, told: Arc<Told>) -> Result<JoinHandle<()>, String> {
    let target = v1::WatchTarget { application: STORE.into(), identifier: IDENTIFIER.into() };
    let request = v1::WatchConfigurationsRequest { targets: vec![target] };
    let mut client = ConfigStoreClient::new(channel);
    let mut stream = client.watch(request).await.map_err(|status| status.to_string())?.into_inner();
    Ok(tokio::spawn(async move {
        while let Ok(Some(_)) = stream.message().await {
            told.messages.fetch_add(1, Ordering::AcqRel);
            told.news.notify_waiters();
        }
    }))
}

/// So many connections, each of which was asked something once and then nothing more.
///
/// # Errors
/// When one is refused.
pub async fn idle(stand: &Stand, count: usize) -> Result<Vec<Channel>, String> {
    let channels = channels(stand, count);
    let mut asking = JoinSet::new();
    for channel in &channels {
        if asking.len() >= AT_ONCE {
            joined(&mut asking).await?;
        }
        let mut client = SystemClient::new(channel.clone());
        asking.spawn(async move {
            let asked = client.get_server_status(v1::GetServerStatusRequest {}).await;
            asked.map(drop).map_err(|status| status.to_string())
        });
    }
    while !asking.is_empty() {
        joined(&mut asking).await?;
    }
    Ok(channels)
}

/// Connections of all users in turn, which nobody asks for a sign of life.
fn channels(stand: &Stand, count: usize) -> Vec<Channel> {
    let hour = Duration::from_secs(3600);
    let options = ConnectOptions { keepalive_interval: hour, ..ConnectOptions::default() };
    let (url, users): (_, Vec<ClientTls>) = (stand.url(), stand.users());
    let channel =
        |tls: &ClientTls| connect_channel(&url, tls.clone(), options).expect("an address");
    users.iter().cycle().take(count).map(channel).collect()
}
