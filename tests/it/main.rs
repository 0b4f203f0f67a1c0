//! Whole-system tests with the real programs, and the rules of the house.

mod access;
mod applications;
mod bad_input;
mod canary;
mod config_store;
mod dev;
mod durability;
mod house;
mod pages;
mod python;
mod sealed_rows;
mod storage;
