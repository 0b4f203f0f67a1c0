//! The same test on every database that can be had here.

use tokio::runtime::Runtime;

use crate::{
    postgres,
    system::{Database, System},
};

/// Runs `test` with a system of one server on SQLite, then with one on PostgreSQL.
///
/// # Panics
/// As the test; the database stands in the output.
pub fn on_each_database(test: impl Fn(&mut System, &Runtime)) {
    on_each_database_with(1, test);
}

/// As [`on_each_database`], with this many servers.
///
/// # Panics
/// As the test; the database stands in the output.
pub fn on_each_database_with(servers: u32, test: impl Fn(&mut System, &Runtime)) {
    let runtime = Runtime::new().expect("a runtime");
    let mut databases = vec![Database::Sqlite];
    databases.extend(postgres::database().map(Database::Postgres));
    for database in databases {
        // Shown only when the test fails.
        println!("on {database:?}");
        let mut system = System::start_with(database, servers, crate::system::Timing::default());
        test(&mut system, &runtime);
    }
}
