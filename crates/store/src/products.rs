//! Queries on products.

use jiff::Timestamp;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, JoinType, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, RelationTrait, Select,
    sea_query::{Expr, ExprTrait, LikeExpr, Query},
};
use uuid::Uuid;

use crate::{
    Cursor, Error, IdOrSlug, ListFilter, MAX_LIMIT, Named, Page, Price, Product, ProductChanges, Store, UpdateOutcome,
    entity::{catalogue, category, product, vendor},
    list::{LIKE_ESCAPE, contains_pattern},
    metrics::Operation,
};

/// The products of one database.
#[derive(Clone)]
pub struct Products {
    store: Store,
}

impl Products {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// One product, by one query.
    pub async fn find(&self, key: &IdOrSlug) -> Result<Option<Product>, Error> {
        let condition = match key {
            IdOrSlug::Id(id) => product::Column::Id.eq(id.to_string()),
            IdOrSlug::Slug(slug) => product::Column::Slug.eq(slug.as_str()),
        };
        let work = one(self.store.reader(), joined().filter(condition));
        self.store.measured(Operation::FindProduct, work).await
    }

    /// One page, by one query. Following `next` to the end shows every product once that was there all the time.
    pub async fn list(&self, filter: &ListFilter) -> Result<Page<Product>, Error> {
        let limit = filter.limit.clamp(1, MAX_LIMIT);
        // One more than asked for tells whether there is a next page.
        let query = page_query(filter).limit(u64::from(limit) + 1);
        let work = async {
            let rows = query.into_model::<ProductRow>().all(self.store.reader()).await?;
            rows.into_iter().map(Product::try_from).collect::<Result<Vec<_>, DbErr>>()
        };
        let mut items = self.store.measured(Operation::ListProducts, work).await?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(|last| Cursor::after(last.id));
        Ok(Page { items, next })
    }

    /// Changes a product and the catalogue's version together. With `expected_version` only if that
    /// is still its version.
    ///
    /// A cancelled call leaves either the whole change or nothing. After an error other than
    /// [`Error::Conflict`] the change may have happened, so invalidate what is cached all the same.
    pub async fn update(
        &self,
        id: Uuid,
        changes: &ProductChanges,
        expected_version: Option<i64>,
    ) -> Result<UpdateOutcome, Error> {
        let work = self.update_in_transaction(id, changes, expected_version);
        self.store.measured(Operation::UpdateProduct, work).await
    }

    async fn update_in_transaction(
        &self,
        id: Uuid,
        changes: &ProductChanges,
        expected_version: Option<i64>,
    ) -> Result<UpdateOutcome, DbErr> {
        let transaction = self.store.begin().await?;
        if write(&transaction, id, changes, expected_version).await? == 0 {
            let row = product::Entity::find_by_id(id.to_string()).one(&transaction).await?;
            transaction.rollback().await?;
            return Ok(match row {
                Some(row) => UpdateOutcome::VersionMismatch { current: row.version },
                None => UpdateOutcome::NotFound,
            });
        }
        let updated = one(&transaction, joined().filter(product::Column::Id.eq(id.to_string()))).await?;
        let updated = updated.ok_or_else(|| DbErr::Type(format!("the product {id} has no vendor or category")))?;
        // Last, because all writers of the catalogue queue for this row.
        bump_catalogue(&transaction).await?;
        transaction.commit().await?;
        Ok(UpdateOutcome::Updated(Box::new(updated)))
    }
}

/// The number of rows written: 1, or 0 when there is no such product or it has another version.
async fn write<C: ConnectionTrait>(
    connection: &C,
    id: Uuid,
    changes: &ProductChanges,
    expected_version: Option<i64>,
) -> Result<u64, DbErr> {
    use product::Column;

    let mut update = product::Entity::update_many()
        .filter(Column::Id.eq(id.to_string()))
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .col_expr(Column::UpdatedAt, Expr::value(Timestamp::now().as_millisecond()));
    if let Some(version) = expected_version {
        update = update.filter(Column::Version.eq(version));
    }
    if let Some(name) = &changes.name {
        update = update
            .col_expr(Column::Name, Expr::value(name.as_str()))
            .col_expr(Column::NameFolded, Expr::value(name.to_lowercase()));
    }
    if let Some(description) = &changes.description {
        update = update.col_expr(Column::Description, Expr::value(description.as_str()));
    }
    if let Some(price_minor) = changes.price_minor {
        update = update.col_expr(Column::PriceMinor, Expr::value(price_minor));
    }
    if let Some(stock) = changes.stock {
        update = update.col_expr(Column::Stock, Expr::value(stock));
    }
    Ok(update.exec(connection).await?.rows_affected)
}

pub(crate) async fn bump_catalogue<C: ConnectionTrait>(connection: &C) -> Result<(), DbErr> {
    catalogue::Entity::update_many()
        .col_expr(catalogue::Column::Version, Expr::col(catalogue::Column::Version).add(1))
        .exec(connection)
        .await
        .map(drop)
}

/// Products with the names of their vendor and category.
fn joined() -> Select<product::Entity> {
    product::Entity::find()
        .column_as(vendor::Column::Name, "vendor_name")
        .column_as(vendor::Column::Slug, "vendor_slug")
        .column_as(category::Column::Name, "category_name")
        .column_as(category::Column::Slug, "category_slug")
        .join(JoinType::InnerJoin, product::Relation::Vendor.def())
        .join(JoinType::InnerJoin, product::Relation::Category.def())
}

fn page_query(filter: &ListFilter) -> Select<product::Entity> {
    let category_id = |slug: &str| {
        // A subquery, not a condition on the joined table: its one value makes the page a range of
        // the index on (category_id, id).
        Query::select()
            .column(category::Column::Id)
            .from(category::Entity)
            .and_where(category::Column::Slug.eq(slug))
            .take()
    };
    joined()
        .apply_if(filter.after, |query, cursor| query.filter(product::Column::Id.gt(cursor.id().to_string())))
        .apply_if(filter.category.as_deref(), |query, slug| {
            query.filter(Expr::col(product::Column::CategoryId.as_column_ref()).eq(category_id(slug)))
        })
        .apply_if(filter.q.as_deref(), |query, q| {
            let pattern = LikeExpr::new(contains_pattern(q)).escape(LIKE_ESCAPE);
            query.filter(Expr::col(product::Column::NameFolded.as_column_ref()).like(pattern))
        })
        .order_by_asc(product::Column::Id)
}

async fn one<C: ConnectionTrait>(connection: &C, query: Select<product::Entity>) -> Result<Option<Product>, DbErr> {
    query.into_model::<ProductRow>().one(connection).await?.map(Product::try_from).transpose()
}

/// A row of [`joined`].
#[derive(FromQueryResult)]
struct ProductRow {
    id: String,
    vendor_id: String,
    vendor_name: String,
    vendor_slug: String,
    category_id: String,
    category_name: String,
    category_slug: String,
    name: String,
    slug: String,
    description: String,
    price_minor: i64,
    currency: String,
    stock: i64,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<ProductRow> for Product {
    type Error = DbErr;

    fn try_from(row: ProductRow) -> Result<Self, DbErr> {
        Ok(Self {
            id: parse_id(&row.id)?,
            vendor: Named { id: parse_id(&row.vendor_id)?, name: row.vendor_name, slug: row.vendor_slug },
            category: Named { id: parse_id(&row.category_id)?, name: row.category_name, slug: row.category_slug },
            name: row.name,
            slug: row.slug,
            description: row.description,
            price: Price { minor: row.price_minor, currency: row.currency },
            stock: row.stock,
            version: row.version,
            created_at: parse_time(row.created_at)?,
            updated_at: parse_time(row.updated_at)?,
        })
    }
}

pub(crate) fn parse_id(text: &str) -> Result<Uuid, DbErr> {
    Uuid::try_parse(text).map_err(|error| DbErr::Type(format!("{text:?} is no id: {error}")))
}

fn parse_time(milliseconds: i64) -> Result<Timestamp, DbErr> {
    Timestamp::from_millisecond(milliseconds)
        .map_err(|error| DbErr::Type(format!("{milliseconds} is no time: {error}")))
}
