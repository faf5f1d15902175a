//! The program `rescomp` from outside: what it prints, writes and refuses, on a small random model.

mod commands;
mod fixture;
mod generate;
mod trusted;
