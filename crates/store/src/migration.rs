//! The schema's history. A migration that was released is never edited: programs have applied it.
//!
//! Old and new workers run side by side during a reload, so a migration adds; what it makes
//! superfluous goes with a later release.

mod m20261120_000001_catalogue;

use sea_orm_migration::prelude::*;

pub(crate) struct Migrations;

#[async_trait::async_trait]
impl MigratorTrait for Migrations {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261120_000001_catalogue::Migration)]
    }
}
