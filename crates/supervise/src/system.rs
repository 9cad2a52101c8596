//! Where a supervisor meets the system it runs on: service manager, terminal, users, files for others, processors.

mod activation;
pub mod affinity;
mod command;
mod detach;
mod host;
mod pid_file;
mod service_manager;
mod state_directory;

pub use activation::ActivatedSocket;
pub use command::{hand_settings, run_as};
pub use detach::{Caller, Detached, Started, detach};
pub use host::{Host, free_bytes};
pub use pid_file::PidFile;
pub use service_manager::ServiceManager;
pub use state_directory::StateDirectory;
