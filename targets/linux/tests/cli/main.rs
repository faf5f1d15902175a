//! The program `rescomp` from outside: what it prints, writes and refuses, on a small random model.

mod chat;
mod classify;
mod commands;
mod conversations;
mod embed;
mod fixture;
mod generate;
mod serve;
mod trusted;
