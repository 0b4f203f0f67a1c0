//! The span of a request, made only when a line is logged within it: most requests are answered at once
//! and log nothing, and a span costs more than their whole way through the door.
//!
//! A request that waits gets its span then, so that whatever is logged later is within it as well.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{Event, Span, Subscriber, span::EnteredSpan};
use tracing_subscriber::{Layer, layer::Context};

/// Whether the filter of the log asks about spans, so that they have to be there before any line.
static EAGER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SLOT: RefCell<Slot> = const { RefCell::new(Slot::Empty) };
}

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    /// Made when a line is logged.
    Waiting(LateSpan),
    /// Made, and entered until the end of the work.
    Entered(EnteredSpan),
}

/// What a span is made of: who asks for what, and under which id.
pub struct LateSpan {
    /// Makes it.
    pub make: fn(id: u128, caller: &dyn fmt::Display, path: &'static str) -> Span,
    /// The id of the request.
    pub id: u128,
    /// Who asks.
    pub caller: Arc<dyn fmt::Display + Send + Sync>,
    /// What for.
    pub path: &'static str,
}

impl fmt::Debug for LateSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateSpan").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LateSpan {
    /// Makes the span.
    #[must_use]
    pub fn span(&self) -> Span {
        (self.make)(self.id, &*self.caller, self.path)
    }

    /// Does the work, with the span around it from the first line on that is logged there; gives back
    /// the span where it was made.
    pub fn around<T>(self, work: impl FnOnce() -> T) -> (T, Result<Span, Self>) {
        let slot = if EAGER.load(Ordering::Relaxed) {
            Slot::Entered(self.span().entered())
        } else {
            Slot::Waiting(self)
        };
        SLOT.set(slot);
        let _emptied = Emptied;
        let done = work();
        let made = match SLOT.take() {
            Slot::Waiting(late) => Err(late),
            Slot::Entered(span) => Ok(span.exit()),
            Slot::Empty => Ok(Span::none()),
        };
        (done, made)
    }
}

/// Leaves nothing behind, also when the work panics.
struct Emptied;

impl Drop for Emptied {
    fn drop(&mut self) {
        SLOT.set(Slot::Empty);
    }
}

/// Makes spans always at once, for filters that ask about them.
pub(crate) fn make_at_once() {
    EAGER.store(true, Ordering::Relaxed);
}

/// Makes the span of the request when a line is about to be logged.
pub(crate) struct LateSpans;

impl<S: Subscriber> Layer<S> for LateSpans {
    fn event_enabled(&self, _: &Event<'_>, _: Context<'_, S>) -> bool {
        // Where the thread is about to end there is no request.
        let slot = SLOT.try_with(RefCell::take).unwrap_or_default();
        if let Slot::Waiting(late) = slot {
            SLOT.set(Slot::Entered(late.span().entered()));
        } else if !matches!(slot, Slot::Empty) {
            SLOT.set(slot);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, atomic::AtomicUsize},
    };

    use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt as _};

    use super::*;

    static MADE: AtomicUsize = AtomicUsize::new(0);

    fn late() -> LateSpan {
        fn make(id: u128, caller: &dyn fmt::Display, path: &'static str) -> Span {
            MADE.fetch_add(1, Ordering::Relaxed);
            tracing::info_span!("request", id, %caller, path)
        }
        LateSpan { make, id: 7, caller: Arc::new("D\\ann"), path: "/s/M" }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_span_is_made_for_the_first_line_and_not_without_one() {
        let written = Written::default();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(written.clone());
        let layer = layer.and_then(LateSpans).with_filter(EnvFilter::new("info"));
        // The default of the whole process: one of a thread alone is not asked within itself.
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .unwrap();
        let lines = || {
            let bytes = std::mem::take(&mut *written.0.lock().unwrap());
            let text = String::from_utf8(bytes).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let made = || MADE.load(Ordering::Relaxed);

        let (five, none) = late().around(|| {
            tracing::debug!("not wanted");
            5
        });
        assert_eq!((five, made(), lines().len()), (5, 0, 0));
        let late_one = none.unwrap_err();

        let ((), span) = late_one.around(|| {
            tracing::info!("first");
            tracing::info!("second");
        });
        let told = lines();
        assert_eq!((made(), told.len()), (1, 2), "{told:?}");
        for line in &told {
            assert!(line.contains("request{id=7 caller=D\\ann path=\"/s/M\"}"), "{line}");
        }
        tracing::info!("outside");
        assert!(!lines().concat().contains("request{"));
        let span = span.unwrap();
        span.in_scope(|| tracing::info!("later"));
        assert!(lines().concat().contains("request{id=7"));
        assert_eq!(made(), 1);

        // Nothing is left behind by what panics.
        let panicked = std::panic::catch_unwind(|| late().around(|| panic!("on purpose")));
        assert!(panicked.is_err());
        tracing::info!("outside again");
        assert!(!lines().concat().contains("request{"));
    }
}
