//! Callers on the same machine: a Unix socket, and who is at its other end.
//!
//! The kernel says which user the caller is, so there is no TLS and nothing to verify. What matters is
//! that nobody else can put a socket of their own in the place of ours.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use nix::unistd::{Uid, User};
use rustix::fs::{FlockOperation, flock};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixSocket, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::acceptor::AcceptLimits;

/// Pause after a failed `accept`, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the system keeps waiting.
const BACKLOG: u32 = 128;

/// Why a Unix socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct LocalError {
    path: PathBuf,
    problem: String,
}

/// A Unix socket that is listened on; its file goes away with the value.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of the socket and the lock that says that it is ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    _lock: File,
}

impl LocalListener {
    /// Listens at `path`, a file that gets these permissions (like `0o660`: who may write to it may
    /// connect). A file left behind by a process that ended is replaced. Call it inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// The folder belongs to somebody else, or others may write to it (everybody, or a group other
    /// than that of this process) and could put a socket of their own there; another process listens; a file of another kind is in the way.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, LocalError> {
        let failed = |problem: String| LocalError { path: path.to_owned(), problem };
        check_folder(path).map_err(failed)?;
        let lock = lock(path).map_err(failed)?;
        clear(path).map_err(failed)?;
        let socket = UnixSocket::new_stream().map_err(|error| failed(error.to_string()))?;
        // Bound but not listened on, so nobody connects before the permissions are right.
        let listener = socket
            .bind(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777)))
            .and_then(|()| socket.listen(BACKLOG));
        let listener = listener.map_err(|error| failed(error.to_string()))?;
        let inode = inode(path).map_err(|error| failed(error.to_string()))?;
        Ok(Self { listener, file: SocketFile { path: path.to_owned(), inode, _lock: lock } })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Only what was made here: not what somebody put in its place meanwhile.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn check_folder(path: &Path) -> Result<(), String> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => return Err("name the folder of the socket".to_owned()),
    };
    let found = fs::metadata(folder)
        .map_err(|error| format!("the folder {}: {error}", folder.display()))?;
    let group = rustix::process::getegid().as_raw();
    if let Some(who) = writers(found.mode(), found.gid(), group) {
        return Err(format!(
            "{who} may write to {}: use a folder of its own for the socket (chmod go-w)",
            folder.display()
        ));
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return Err(format!("{} belongs to another user than this process", folder.display()));
    }
    Ok(())
}

/// Who else may put files into a folder of this mode and group; `own` is the group of this process.
fn writers(mode: u32, group: u32, own: u32) -> Option<&'static str> {
    match (mode & 0o002 != 0, mode & 0o020 != 0 && group != own) {
        (true, _) => Some("everybody"),
        (false, true) => Some("another group than that of this process"),
        (false, false) => None,
    }
}

/// Held as long as the socket is: who has it may replace what lies there.
fn lock(path: &Path) -> Result<File, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name)
        .map_err(|error| format!("{}: {error}", name.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| "another process listens on this socket".to_owned())?;
    Ok(file)
}

/// Removes the socket of a process that ended.
fn clear(path: &Path) -> Result<(), String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !found.file_type().is_socket() {
        return Err("is there and no socket: remove it or name another path".to_owned());
    }
    // A program that takes no lock may use the same path.
    if BlockingStream::connect(path).is_ok() {
        return Err("another process listens on this socket".to_owned());
    }
    fs::remove_file(path).map_err(|error| error.to_string())
}

/// The process at the other end of a connection: in the extensions of every request on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// The user that the process ran as when it connected.
    pub uid: u32,
    /// The name of that user in the system's database of users; `None` where it has none.
    pub user: Option<Arc<str>>,
    /// The process that connected; it may have handed the connection on.
    pub pid: Option<i32>,
    /// The program of that process, where this process may know it.
    pub program: Option<Arc<str>>,
}

/// Accepted connections for `serve_with_incoming_shutdown`. Dropping the stream, or `shutdown`, closes
/// the listener and removes its file. No error ends the stream.
pub fn local_incoming(
    listener: LocalListener,
    limits: AcceptLimits,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<LocalConnection>> {
    let (accepted, incoming) = mpsc::channel(64);
    tokio::spawn(accept_loop(listener, limits, shutdown, accepted));
    ReceiverStream::new(incoming)
}

async fn accept_loop(
    listener: LocalListener,
    limits: AcceptLimits,
    shutdown: CancellationToken,
    accepted: mpsc::Sender<io::Result<LocalConnection>>,
) {
    let door = LocalDoor::new(limits);
    loop {
        let arrival = tokio::select! {
            () = accepted.closed() => return,
            arrival = door.arrival(&listener, &shutdown) => arrival,
        };
        let Some((io, slot)) = arrival else { return };
        let (door, accepted) = (Arc::clone(&door), accepted.clone());
        tokio::spawn(async move {
            let _slot = slot;
            if let Some(connection) = door.let_in(io).await {
                // An error only says that the server is going away.
                let _ = accepted.send(Ok(connection)).await;
            }
        });
    }
}

/// What all connections of the socket pass.
pub(crate) struct LocalDoor {
    slots: Arc<Semaphore>,
    users: Arc<Users>,
    within: Duration,
}

impl LocalDoor {
    pub(crate) fn new(limits: AcceptLimits) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(limits.handshakes)),
            users: Arc::new(Users { most: limits.per_local_user, connected: Mutex::default() }),
            within: limits.handshake_timeout,
        })
    }

    /// The next one that comes, and its place until it is known who that is; `None` once `shutdown` has
    /// come.
    pub(crate) async fn arrival(
        &self,
        listener: &LocalListener,
        shutdown: &CancellationToken,
    ) -> Option<(UnixStream, OwnedSemaphorePermit)> {
        loop {
            let next = async {
                let slot = Arc::clone(&self.slots).acquire_owned().await;
                (slot, listener.listener.accept().await)
            };
            let (slot, connection) = tokio::select! {
                () = shutdown.cancelled() => return None,
                next = next => next,
            };
            match (slot, connection) {
                (Ok(slot), Ok((io, _))) => return Some((io, slot)),
                // Nobody closes the semaphore.
                (Err(_), _) => return None,
                (_, Err(error)) => {
                    tracing::warn!(%error, "a local connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Finds out who that is; `None` when the user has too many connections.
    pub(crate) async fn let_in(&self, io: UnixStream) -> Option<LocalConnection> {
        identify(io, &self.users, self.within).await
    }
}

/// How many connections each user has.
#[derive(Debug)]
struct Users {
    most: usize,
    connected: Mutex<HashMap<u32, usize>>,
}

/// One of the connections that a user may have.
#[derive(Debug)]
struct Place {
    users: Arc<Users>,
    uid: u32,
}

impl Users {
    fn place(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connected.entry(uid).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { users: Arc::clone(self), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connected = self.users.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let left = connected.get(&self.uid).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            connected.remove(&self.uid);
        } else {
            connected.insert(self.uid, left);
        }
    }
}

async fn identify(io: UnixStream, users: &Arc<Users>, within: Duration) -> Option<LocalConnection> {
    let credentials = match io.peer_cred() {
        Ok(credentials) => credentials,
        Err(error) => {
            tracing::info!(%error, "a local connection without a user is refused");
            return None;
        }
    };
    let (uid, pid) = (credentials.uid(), credentials.pid());
    let Some(place) = users.place(uid) else {
        tracing::info!(uid, "a local connection is refused: the user has too many");
        return None;
    };
    // The database of users may be a directory on the network.
    let asking = tokio::task::spawn_blocking(move || (user_name(uid), pid.and_then(program_of)));
    let (user, program) = match tokio::time::timeout(within, asking).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(uid, "the database of users does not answer");
            (None, None)
        }
    };
    let peer = LocalPeer { uid, user, pid, program };
    Some(LocalConnection { io, peer, _place: place })
}

/// The name of a user in the system's database of users; `None` where it has none. The database may be a
/// directory on the network, so this may take its time.
#[must_use]
pub fn user_name(uid: u32) -> Option<Arc<str>> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(user) => user.map(|user| user.name.into()),
        Err(error) => {
            tracing::warn!(uid, %error, "the database of users cannot be read");
            None
        }
    }
}

fn program_of(pid: i32) -> Option<Arc<str>> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(program.to_string_lossy().into())
}

/// A connection of a process on this machine.
pub struct LocalConnection {
    io: UnixStream,
    peer: LocalPeer,
    _place: Place,
}

impl fmt::Debug for LocalConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl LocalConnection {
    /// The process at the other end.
    #[must_use]
    pub fn peer(&self) -> &LocalPeer {
        &self.peer
    }
}

impl Connected for LocalConnection {
    type ConnectInfo = LocalPeer;

    fn connect_info(&self) -> LocalPeer {
        self.peer.clone()
    }
}

impl AsyncRead for LocalConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for LocalConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    fn refused(path: &Path) -> String {
        LocalListener::bind(path, 0o660).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_socket_is_made_with_its_permissions_and_goes_away() {
        let folder = folder(0o755);
        let path = folder.path().join("sso.sock");
        let listener = LocalListener::bind(&path, 0o620).unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.mode() & 0o7777, 0o620);
        assert!(refused(&path).contains("another process"));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_nothing_else() {
        let folder = folder(0o755);
        let path = folder.path().join("sso.sock");
        // Closed without its file being removed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(LocalListener::bind(&path, 0o660).unwrap());

        let living = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(refused(&path).contains("another process"));
        drop(living);
        fs::remove_file(&path).unwrap();

        fs::write(&path, "text").unwrap();
        assert!(refused(&path).contains("no socket"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(refused(&path).contains("no socket"));
    }

    #[tokio::test]
    async fn not_where_everybody_may_write() {
        for mode in [0o777, 0o1777] {
            let folder = folder(mode);
            assert!(refused(&folder.path().join("s")).contains("everybody may write"));
        }
        assert!(refused(Path::new("bare")).contains("folder"));
    }

    #[tokio::test]
    async fn a_group_may_write_only_where_it_is_the_own() {
        let folder = folder(0o770);
        let own = fs::metadata(folder.path()).unwrap().gid();
        assert_eq!(own, rustix::process::getegid().as_raw());
        drop(LocalListener::bind(&folder.path().join("s"), 0o660).unwrap());
        for (mode, group, refused) in [
            (0o770, own + 1, true),
            (0o750, own + 1, false),
            (0o770, own, false),
            (0o772, own, true),
        ] {
            assert_eq!(writers(mode, group, own).is_some(), refused, "{mode:o} {group}");
        }
    }

    #[tokio::test]
    async fn one_user_has_so_many_connections_and_no_more() {
        use tokio::io::AsyncReadExt as _;
        use tokio_stream::StreamExt as _;

        let folder = folder(0o700);
        let path = folder.path().join("sso.sock");
        let listener = LocalListener::bind(&path, 0o600).unwrap();
        let limits = AcceptLimits { per_local_user: 2, ..AcceptLimits::default() };
        let mut incoming = local_incoming(listener, limits, CancellationToken::new());
        let (_first, _second) =
            (UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap());
        let first = incoming.next().await.unwrap().unwrap();
        let _other = incoming.next().await.unwrap().unwrap();
        let mut third = UnixStream::connect(&path).await.unwrap();
        assert_eq!(third.read(&mut [0; 1]).await.unwrap(), 0, "it is closed at once");
        drop(first);
        let _fourth = UnixStream::connect(&path).await.unwrap();
        let _ = incoming.next().await.unwrap().unwrap();
    }

    #[test]
    fn users_are_counted_one_by_one() {
        let users = Arc::new(Users { most: 1, connected: Mutex::default() });
        let place = users.place(1).unwrap();
        assert!(users.place(1).is_none());
        let _other = users.place(2).unwrap();
        drop(place);
        assert_eq!(users.connected.lock().unwrap().len(), 1, "who has none is forgotten");
        assert!(users.place(1).is_some());
    }

    #[tokio::test]
    async fn the_other_end_is_this_process() {
        use tokio_stream::StreamExt as _;

        let folder = folder(0o700);
        let path = folder.path().join("sso.sock");
        let listener = LocalListener::bind(&path, 0o600).unwrap();
        let stop = CancellationToken::new();
        let mut incoming = local_incoming(listener, AcceptLimits::default(), stop.clone());
        let _client = UnixStream::connect(&path).await.unwrap();
        let peer = incoming.next().await.unwrap().unwrap().connect_info();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
        let own = std::env::current_exe().unwrap();
        assert_eq!(peer.program.as_deref(), own.to_str());
        stop.cancel();
        assert!(incoming.next().await.is_none());
    }
}
