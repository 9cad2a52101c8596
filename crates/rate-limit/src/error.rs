//! What makes a list of policies unusable.

/// Why a limiter cannot be made. Nothing can go wrong afterwards: a limiter that cannot ask Redis decides on its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are more policies than fit a [`crate::PolicySet`].
    #[error("at most 64 policies can be in force, not {0}")]
    TooManyPolicies(usize),
    /// Two policies would share their counters.
    #[error("two policies are named {0:?}")]
    DuplicateName(String),
    /// A policy says something that cannot be enforced.
    #[error("policy {name:?}: {problem}")]
    Policy {
        /// The policy's name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// This worker is not one of the workers.
    #[error("worker {index} is not one of {workers}")]
    Share {
        /// The worker's number, from 0.
        index: u32,
        /// How many there are.
        workers: u32,
    },
}
