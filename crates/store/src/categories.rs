//! Queries on categories.

use sea_orm::{DbErr, EntityTrait, QueryOrder};

use crate::{Category, Error, Named, Store, entity::category, metrics::Operation, products::parse_id};

/// The categories of one database.
#[derive(Clone)]
pub struct Categories {
    store: Store,
}

impl Categories {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// All of them (dozens, not thousands), by name.
    pub async fn all(&self) -> Result<Vec<Category>, Error> {
        let work = async {
            let mut rows = category::Entity::find().order_by_asc(category::Column::Id).all(self.store.reader()).await?;
            // Here, because the two databases may sort letters differently.
            rows.sort_by(|left, right| left.name.cmp(&right.name));
            rows.into_iter().map(category_from_row).collect::<Result<Vec<_>, DbErr>>()
        };
        self.store.measured(Operation::ListCategories, work).await
    }
}

fn category_from_row(row: category::Model) -> Result<Category, DbErr> {
    Ok(Named { id: parse_id(&row.id)?, name: row.name, slug: row.slug })
}
