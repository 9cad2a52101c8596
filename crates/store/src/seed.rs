//! Demo data: the same for the same seed, on either database, in every release.

mod generator;
mod random;
mod words;

use sea_orm::{ActiveModelTrait, DatabaseTransaction, DbErr, EntityTrait, IntoActiveModel, SelectExt};

use crate::{
    Error, Store,
    entity::{category, product, vendor},
    products::bump_catalogue,
};
use generator::Generator;

/// Rows in one `INSERT`: 13 values each, below SQLite's 32,766 and PostgreSQL's 65,535 parameters.
const BATCH: usize = 500;

/// How much demo data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedSize {
    /// 1,000 products of 40 vendors.
    Small,
    /// 120,000 products of 400 vendors.
    Large,
}

impl SeedSize {
    /// The number of products.
    pub fn products(self) -> u64 {
        match self {
            Self::Small => 1_000,
            Self::Large => 120_000,
        }
    }

    fn vendors(self) -> u64 {
        match self {
            Self::Small => 40,
            Self::Large => 400,
        }
    }
}

/// What the demo data is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    /// How much.
    pub size: SeedSize,
    /// Another number gives other data.
    pub number: u64,
}

/// What became of the wish for demo data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedOutcome {
    /// The database was empty and has this many products now.
    Seeded {
        /// [`SeedSize::products`].
        products: u64,
    },
    /// It held a vendor, a category or a product, so nothing was written.
    NotEmpty,
}

impl Store {
    /// Fills an empty database, in one transaction: all of it or, should the process die, nothing.
    /// Processes that do so at once wait for one another, and the first one fills.
    ///
    /// `progress` is called with the number of products done and to do, first with 0 done.
    pub async fn seed_if_empty(&self, seed: Seed, mut progress: impl FnMut(u64, u64)) -> Result<SeedOutcome, Error> {
        let transaction = self.begin_exclusive().await?;
        if !is_empty(&transaction).await? {
            transaction.rollback().await?;
            return Ok(SeedOutcome::NotEmpty);
        }
        let mut generator = Generator::new(seed.number, seed.size.vendors());
        insert::<vendor::Entity, _>(&transaction, generator.vendors()).await?;
        insert::<category::Entity, _>(&transaction, generator.categories()).await?;
        let total = seed.size.products();
        progress(0, total);
        for start in (0..total).step_by(BATCH) {
            let end = total.min(start + BATCH as u64);
            let batch = (start..end).map(|index| generator.product(index)).collect();
            insert::<product::Entity, _>(&transaction, batch).await?;
            progress(end, total);
        }
        bump_catalogue(&transaction).await?;
        transaction.commit().await?;
        Ok(SeedOutcome::Seeded { products: total })
    }
}

async fn is_empty(transaction: &DatabaseTransaction) -> Result<bool, DbErr> {
    Ok(!vendor::Entity::find().exists(transaction).await?
        && !category::Entity::find().exists(transaction).await?
        && !product::Entity::find().exists(transaction).await?)
}

async fn insert<E, A>(transaction: &DatabaseTransaction, rows: Vec<E::Model>) -> Result<(), DbErr>
where
    E: EntityTrait,
    E::Model: IntoActiveModel<A>,
    A: ActiveModelTrait<Entity = E> + Send,
{
    let rows = rows.into_iter().map(IntoActiveModel::into_active_model);
    E::insert_many(rows).exec_without_returning(transaction).await.map(drop)
}
