//! The solvers. One program, since each would compile them anew for its types.

mod methods;
mod oracle;
mod robustness;
