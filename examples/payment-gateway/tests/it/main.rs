//! The example with its real programs, over real mutual TLS, on a real secret store.

#[cfg(test)]
mod kills;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod story;
