//! Whole-system tests with the real programs, and the rules of the house.

#[cfg(test)]
mod access;
#[cfg(test)]
mod applications;
mod audit;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod config_store;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod house;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod python;
#[cfg(test)]
mod sealed_rows;
#[cfg(test)]
mod storage;
