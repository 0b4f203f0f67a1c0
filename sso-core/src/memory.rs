//! Keys in memory that is never swapped, dumped or inherited, and a process that nobody can read.
//!
//! A [`LockedKey`] lives alone in a page between two inaccessible pages. The page is locked (never
//! swapped), left out of core dumps and wiped in forked children, and after the key is in it the
//! page is read-only. Locking needs `RLIMIT_MEMLOCK` (one page per key; `LimitMEMLOCK=` of a unit
//! file). Where the limit refuses, the key is kept all the same and the log warns once, because a
//! machine without swap loses nothing by it; [`require_locked_memory`] turns that into an error.

#![expect(unsafe_code, reason = "the one room that maps and locks memory by hand")]

use std::{
    ffi::c_void,
    fmt, io,
    ptr::{self, NonNull},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::{TryRng as _, rngs::SysRng};
use rustix::{
    io::Errno,
    mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags},
    param::page_size,
    process::{DumpableBehavior, Resource, Rlimit},
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

/// Bytes of every key in this product.
pub const KEY_BYTES: usize = 32;

static LOCK_REQUIRED: AtomicBool = AtomicBool::new(false);
static LOCK_WARNING: Once = Once::new();

/// Why a key cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The material is not 32 bytes.
    #[error("a key has 32 bytes, not {0}")]
    Length(usize),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Random(String),
    /// No page could be set up for the key.
    #[error("no protected memory for a key: {0}")]
    Memory(#[source] io::Error),
    /// The page cannot be locked and [`require_locked_memory`] was called.
    #[error(
        "the memory of a key cannot be locked: {0}; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in a unit file)"
    )]
    NotLocked(#[source] io::Error),
}

/// From now on a key whose memory cannot be locked is an error instead of a warning.
pub fn require_locked_memory() {
    LOCK_REQUIRED.store(true, Ordering::Relaxed);
}

/// A 32-byte key in a page of its own; wiped when dropped, compared in constant time.
pub struct LockedKey {
    page: Page,
}

impl LockedKey {
    /// A fresh random key from the operating system.
    ///
    /// # Errors
    /// When there is no randomness or no memory.
    pub fn generate() -> Result<Self, KeyError> {
        Self::fill(|key| {
            SysRng.try_fill_bytes(key).map_err(|error| KeyError::Random(error.to_string()))
        })
    }

    /// A key of these 32 bytes, which are copied.
    ///
    /// # Errors
    /// When there are not 32 bytes, or no memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: &[u8; KEY_BYTES] =
            bytes.try_into().map_err(|_| KeyError::Length(bytes.len()))?;
        Self::fill(|key| {
            key.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: the page is mapped readable for as long as `self` lives, is larger than a key,
        // and nothing writes to it after `fill`.
        unsafe { self.page.data.cast::<[u8; KEY_BYTES]>().as_ref() }
    }

    /// A key written in place by `write`, so that no copy is left anywhere else.
    pub(crate) fn fill(
        write: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), KeyError>,
    ) -> Result<Self, KeyError> {
        let page = Page::map()?;
        // SAFETY: the page is mapped writable, larger than a key, zeroed by the kernel, and this is
        // the only reference to it.
        write(unsafe { page.data.cast::<[u8; KEY_BYTES]>().as_mut() })?;
        page.protect(MprotectFlags::READ).map_err(memory)?;
        Ok(Self { page })
    }
}

/// Many keys in few locked pages: for those of which there can be thousands. A key that was written is
/// never written again, and goes when its page does, which is when all keys of the page have gone.
#[derive(Default)]
pub(crate) struct KeyPages {
    /// The page that is being filled, and how many keys are in it.
    filling: Option<(Arc<Page>, usize)>,
}

/// A key in one of the [`KeyPages`].
pub(crate) struct PagedKey {
    page: Arc<Page>,
    number: usize,
}

impl KeyPages {
    /// A copy of `key` in a locked page.
    pub(crate) fn add(&mut self, key: &[u8; KEY_BYTES]) -> Result<PagedKey, KeyError> {
        let (page, number) = match self.filling.take() {
            Some((page, used)) if (used + 1) * KEY_BYTES <= page.size => (page, used),
            _ => (Arc::new(Page::map()?), 0),
        };
        page.protect(MprotectFlags::READ | MprotectFlags::WRITE).map_err(memory)?;
        // SAFETY: the place is inside the page, which is mapped and writable; whoever fills the page has
        // it alone (`&mut self`), and no key that refers to this place was given out yet.
        unsafe { page.place(number).as_ptr().write(*key) };
        page.protect(MprotectFlags::READ).map_err(memory)?;
        self.filling = Some((Arc::clone(&page), number + 1));
        Ok(PagedKey { page, number })
    }
}

impl PagedKey {
    /// The key itself.
    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: the place was written before this value was made, is never written again, and stays
        // mapped and readable for as long as `self` holds the page.
        unsafe { self.page.place(self.number).as_ref() }
    }
}

impl PartialEq for LockedKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for LockedKey {}

impl fmt::Debug for LockedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedKey(redacted)")
    }
}

/// One page of data between two pages nobody may touch.
struct Page {
    data: NonNull<u8>,
    size: usize,
}

// SAFETY: a page belongs to one owner, and behind a shared reference it is only read.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// A writable, locked page of zeros.
    fn map() -> Result<Self, KeyError> {
        let size = page_size();
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe {
            mm::mmap_anonymous(ptr::null_mut(), 3 * size, ProtFlags::empty(), MapFlags::PRIVATE)
        }
        .map_err(memory)?;
        let data = NonNull::new(base.cast::<u8>().wrapping_add(size))
            .ok_or_else(|| memory(Errno::NOMEM))?;
        let page = Self { data, size };
        page.protect(MprotectFlags::READ | MprotectFlags::WRITE).map_err(memory)?;
        page.advise(Advice::LinuxDontDump).map_err(memory)?;
        // Apart from locking: a page that may be swapped is kept from children all the same.
        let wiped = page.advise(Advice::LinuxWipeOnFork);
        if let Err(error) = page.lock().and(wiped) {
            if LOCK_REQUIRED.load(Ordering::Relaxed) {
                return Err(KeyError::NotLocked(error.into()));
            }
            LOCK_WARNING.call_once(|| {
                tracing::warn!(
                    %error,
                    "the memory of keys cannot be locked and may be swapped to disk; \
                     raise RLIMIT_MEMLOCK (LimitMEMLOCK= in a unit file) or turn swap off"
                );
            });
        }
        Ok(page)
    }

    /// The place of a key of this number; the caller knows that it is inside the page.
    fn place(&self, number: usize) -> NonNull<[u8; KEY_BYTES]> {
        // SAFETY: callers pass numbers of places inside the page, which is one allocation.
        unsafe { self.data.cast::<[u8; KEY_BYTES]>().add(number) }
    }

    fn protect(&self, flags: MprotectFlags) -> Result<(), Errno> {
        // SAFETY: the range is this page. While references to it are alive it stays readable: only the
        // right to write comes and goes.
        unsafe { mm::mprotect(self.start(), self.size, flags) }
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        // SAFETY: the range is this page; the advices used change dumps and forks only.
        unsafe { mm::madvise(self.start(), self.size, advice) }
    }

    fn lock(&self) -> Result<(), Errno> {
        // SAFETY: the range is this page, which is mapped.
        unsafe { mm::mlock(self.start(), self.size) }
    }

    fn start(&self) -> *mut c_void {
        self.data.as_ptr().cast()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if self.protect(MprotectFlags::READ | MprotectFlags::WRITE).is_ok() {
            // SAFETY: mapped, just made writable, and dropped: no reference is left.
            unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.size) }.zeroize();
        }
        let base = self.data.as_ptr().wrapping_sub(self.size).cast();
        // SAFETY: exactly the range that `map` mapped; unmapping unlocks. A failure leaves a wiped
        // page behind, which harms nobody.
        let _ = unsafe { mm::munmap(base, 3 * self.size) };
    }
}

fn memory(errno: Errno) -> KeyError {
    KeyError::Memory(errno.into())
}

/// Why a process cannot be closed to readers.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// The core file limit cannot be set.
    #[error("core dumps cannot be turned off: {0}")]
    CoreLimit(#[source] io::Error),
    /// The dumpable flag cannot be cleared.
    #[error("the process cannot be closed to debuggers: {0}")]
    Dumpable(#[source] io::Error),
    /// The settings were accepted but do not read back.
    #[error("{0} did not take effect; refusing to handle keys in this process")]
    NoEffect(&'static str),
}

/// Turns core dumps and debugging by the same user off, and proves it by reading back.
///
/// `RLIMIT_CORE` alone would not do: it is ignored when dumps are piped to a collector. The
/// dumpable flag stops those too, and makes `/proc/PID/mem` and `ptrace` refuse.
/// The flag also gives `/proc/self` to root; read what is needed there before.
///
/// # Errors
/// When either cannot be set or does not hold; a program that handles keys must not start then.
pub fn harden_process() -> Result<(), HardenError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)
        .map_err(|error| HardenError::CoreLimit(error.into()))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| HardenError::Dumpable(error.into()))?;

    let limit = rustix::process::getrlimit(Resource::Core);
    if limit.current != Some(0) || limit.maximum != Some(0) {
        return Err(HardenError::NoEffect("the limit on core dumps"));
    }
    let dumpable = rustix::process::dumpable_behavior()
        .map_err(|error| HardenError::Dumpable(error.into()))?;
    if dumpable != DumpableBehavior::NotDumpable {
        return Err(HardenError::NoEffect("the protection from debuggers"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `VmFlags` of the mapping that holds `address`.
    fn flags_of(address: usize) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) =
                    (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        Vec::new()
    }

    #[test]
    fn a_key_is_locked_read_only_and_stays_out_of_dumps_and_children() {
        let key = LockedKey::generate().unwrap();
        let address = key.expose().as_ptr() as usize;
        let flags = flags_of(address);
        for flag in ["rd", "lo", "dd", "wf"] {
            assert!(flags.iter().any(|have| have == flag), "{flag} is missing: {flags:?}");
        }
        assert!(!flags.iter().any(|have| have == "wr"), "{flags:?}");
        for guard in [address - 1, address + page_size()] {
            let flags = flags_of(guard);
            assert!(!flags.iter().any(|have| have == "rd" || have == "wr"), "{flags:?}");
        }
    }

    #[test]
    fn keys_are_random_compared_and_redacted() {
        let (one, other) = (LockedKey::generate().unwrap(), LockedKey::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one, LockedKey::from_bytes(one.expose()).unwrap());
        assert_eq!(format!("{one:?}"), "LockedKey(redacted)");
    }

    #[test]
    fn only_32_bytes_make_a_key() {
        for length in [0, 31, 33] {
            let error = LockedKey::from_bytes(&vec![1; length]).unwrap_err();
            assert!(matches!(error, KeyError::Length(found) if found == length));
        }
        assert_eq!(LockedKey::from_bytes(&[7; 32]).unwrap().expose(), &[7; 32]);
    }

    #[test]
    fn many_keys_come_and_go() {
        let keys: Vec<_> =
            (0..64).map(|byte| LockedKey::from_bytes(&[byte; 32]).unwrap()).collect();
        for (byte, key) in (0..).zip(&keys) {
            assert_eq!(key.expose(), &[byte; 32]);
        }
    }

    #[test]
    fn many_keys_share_locked_pages_and_keep_their_values() {
        let mut pages = KeyPages::default();
        let count = 3 * page_size() / KEY_BYTES;
        let value = |number: usize| {
            let mut key = [7; KEY_BYTES];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        let keys: Vec<_> = (0..count).map(|number| pages.add(&value(number)).unwrap()).collect();
        drop(pages);
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(*key.expose(), value(number));
        }
        let first = keys[0].expose().as_ptr() as usize;
        assert_eq!(keys[1].expose().as_ptr() as usize, first + KEY_BYTES);
        let flags = flags_of(first);
        for flag in ["rd", "lo", "dd", "wf"] {
            assert!(flags.iter().any(|have| have == flag), "{flag} is missing: {flags:?}");
        }
        assert!(!flags.iter().any(|have| have == "wr"), "{flags:?}");
    }

    #[test]
    fn a_write_that_fails_makes_no_key() {
        let result = LockedKey::fill(|_| Err(KeyError::Random("none".into())));
        assert!(matches!(result, Err(KeyError::Random(_))));
    }
}
