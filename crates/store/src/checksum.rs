//! One number for everything in the catalogue.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    Error, Store,
    entity::{category, product, vendor},
};

/// Rows read at a time.
const PAGE: u64 = 2_000;

impl Store {
    /// XXH3-128, as 32 hexadecimal digits, over all vendors, categories and products in the order of
    /// their ids: equal contents give equal checksums on either database. Writes that happen
    /// meanwhile may be in it or not.
    pub async fn checksum(&self) -> Result<String, Error> {
        let mut hash = Digest(Xxh3::new());
        for row in vendor::Entity::find().order_by_asc(vendor::Column::Id).all(self.reader()).await? {
            hash.texts(&[&row.id, &row.name, &row.slug]);
        }
        for row in category::Entity::find().order_by_asc(category::Column::Id).all(self.reader()).await? {
            hash.texts(&[&row.id, &row.name, &row.slug]);
        }
        let mut last = String::new();
        loop {
            let page = product::Entity::find()
                .filter(product::Column::Id.gt(last))
                .order_by_asc(product::Column::Id)
                .limit(PAGE)
                .all(self.reader())
                .await?;
            for row in &page {
                hash.product(row);
            }
            match page.into_iter().last() {
                Some(row) => last = row.id,
                None => return Ok(format!("{:032x}", hash.0.digest128())),
            }
        }
    }
}

struct Digest(Xxh3);

impl Digest {
    fn product(&mut self, row: &product::Model) {
        self.texts(&[&row.id, &row.vendor_id, &row.category_id, &row.name, &row.name_folded, &row.slug]);
        self.texts(&[&row.description, &row.currency]);
        for number in [row.price_minor, row.stock, row.version, row.created_at, row.updated_at] {
            self.0.update(&number.to_le_bytes());
        }
    }

    /// With their lengths, so that no two rows read alike.
    fn texts(&mut self, texts: &[&str]) {
        for text in texts {
            self.0.update(&(text.len() as u64).to_le_bytes());
            self.0.update(text.as_bytes());
        }
    }
}
