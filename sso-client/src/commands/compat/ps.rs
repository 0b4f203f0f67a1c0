//! `ssops`: password synchronisation (ESSO.md 11.4), which this version does not have.

use super::{frame::Call, switches::switches};
use crate::failure::Failure;

switches! {
    /// What `ssops` is asked for.
    Ps by run;
    List = "list" "" 0..=0 WorksHere "list the adapters: there are none";
    Display = "display" "ADAPTER" 1..=1 Absent "show an adapter";
    Create = "create" "FILE" 1..=1 Absent "create the adapters of an XML file";
    Update = "update" "FILE" 1..=1 Absent "update the adapters of an XML file";
    SetProps = "setprops" "ADAPTER" 1..=1 Absent "set the properties of an adapter";
    Delete = "delete" "ADAPTER" 1..=1 Absent "delete an adapter";
    Enable = "enable" "ADAPTER" 1..=1 Absent "enable an adapter";
    Disable = "disable" "ADAPTER" 1..=1 Absent "disable an adapter";
    AddApp = "addapp" "ADAPTER APP" 2..=2 Absent "assign an application to an adapter";
    DeleteApp = "deleteapp" "APP" 1..=1 Absent "take an application away from its adapter";
    Reset = "reset" "ADAPTER|all|damping" 1..=1 Absent "clear queues or the damping table";
    AddToGroup = "addtogroup" "ADAPTER GROUP" 2..=2 Absent "put an adapter into a group";
    DeleteFromGroup = "deletefromgroup" "ADAPTER GROUP" 2..=2 Absent "take an adapter out of a group";
}

async fn run(verb: Ps, call: &Call<'_>) -> Result<(), Failure> {
    match verb {
        Ps::List => call.line("There are no password synchronisation adapters."),
        Ps::Display
        | Ps::Create
        | Ps::Update
        | Ps::SetProps
        | Ps::Delete
        | Ps::Enable
        | Ps::Disable
        | Ps::AddApp
        | Ps::DeleteApp
        | Ps::Reset
        | Ps::AddToGroup
        | Ps::DeleteFromGroup => Err(Failure::refused(
            "password synchronisation is not part of this version",
            "nothing was changed",
        )),
    }
}
