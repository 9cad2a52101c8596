//! Vendors, categories, products, and the catalogue's version.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["vendor", "category"] {
            manager.create_table(create_named(table, manager)).await?;
        }
        manager.create_table(create_product(manager)).await?;
        // A page of a category is one range of this index.
        let mut index = Index::create();
        index.name("product_category_id_id").table("product").col("category_id").col("id");
        manager.create_index(index).await?;

        let only_one = Expr::col("id").eq(1);
        let mut catalogue = Table::create();
        catalogue
            .table("catalogue")
            .col(ColumnDef::new("id").big_integer().not_null().primary_key().check(only_one))
            .col(ColumnDef::new("version").big_integer().not_null());
        manager.create_table(catalogue).await?;
        manager
            .execute(
                Query::insert()
                    .into_table("catalogue")
                    .columns(["id", "version"])
                    .values_panic([1.into(), 1.into()])
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["catalogue", "product", "category", "vendor"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

fn create_named(table: &'static str, manager: &SchemaManager) -> TableCreateStatement {
    Table::create()
        .table(table)
        .col(identifier("id", manager).primary_key())
        .col(ColumnDef::new("name").text().not_null())
        .col(identifier("slug", manager).unique_key())
        .to_owned()
}

fn create_product(manager: &SchemaManager) -> TableCreateStatement {
    let not_negative =
        |name: &'static str| ColumnDef::new(name).big_integer().not_null().check(Expr::col(name).gte(0)).to_owned();
    let reference = |column: &'static str, table: &'static str| {
        ForeignKey::create().from("product", column).to(table, "id").to_owned()
    };
    Table::create()
        .table("product")
        .col(identifier("id", manager).primary_key())
        .col(identifier("vendor_id", manager))
        .col(identifier("category_id", manager))
        .col(ColumnDef::new("name").text().not_null())
        .col(ColumnDef::new("name_folded").text().not_null())
        .col(identifier("slug", manager).unique_key())
        .col(ColumnDef::new("description").text().not_null())
        .col(not_negative("price_minor"))
        .col(ColumnDef::new("currency").text().not_null())
        .col(not_negative("stock"))
        .col(ColumnDef::new("version").big_integer().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .foreign_key(&mut reference("vendor_id", "vendor"))
        .foreign_key(&mut reference("category_id", "category"))
        .to_owned()
}

/// Text that is compared byte by byte, as SQLite does by default, so that pages are in the same
/// order everywhere.
fn identifier(name: &'static str, manager: &SchemaManager) -> ColumnDef {
    let mut column = ColumnDef::new(name);
    column.text().not_null();
    if manager.get_database_backend() == sea_orm::DbBackend::Postgres {
        column.extra("COLLATE \"C\"");
    }
    column
}
