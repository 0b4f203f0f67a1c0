//! The roles of a caller that were worked out already.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{Application, GlobalInfo};

/// Applications remembered for one caller.
const PLACES: usize = 16;

/// A caller's roles in applications, as bits. An entry counts only for the very same application and
/// settings that it was worked out from: both are values that never change, and while an entry refers to
/// them, nothing else gets their address.
#[derive(Default)]
pub struct RoleMemo(Mutex<Option<Box<[Option<Entry>; PLACES]>>>);

struct Entry {
    application: Weak<Application>,
    global: Weak<GlobalInfo>,
    roles: u16,
}

impl Clone for RoleMemo {
    /// An empty one.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for RoleMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleMemo").finish_non_exhaustive()
    }
}

impl RoleMemo {
    /// The roles in the application under these settings; `work_out` is asked where they are not known.
    pub fn roles(
        &self,
        application: &Arc<Application>,
        global: &Arc<GlobalInfo>,
        work_out: impl FnOnce() -> u16,
    ) -> u16 {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = places.get_or_insert_with(|| Box::new([const { None }; PLACES]));
        // Values this large lie far apart.
        let number = Arc::as_ptr(application).addr() / size_of::<Application>();
        let Some(place) = places.get_mut(number % PLACES) else { return work_out() };
        if let Some(known) = place
            && Weak::as_ptr(&known.application) == Arc::as_ptr(application)
            && Weak::as_ptr(&known.global) == Arc::as_ptr(global)
        {
            return known.roles;
        }
        let roles = work_out();
        *place = Some(Entry {
            application: Arc::downgrade(application),
            global: Arc::downgrade(global),
            roles,
        });
        roles
    }
}
