//! Makes rows from numbers. Nothing here reads a clock, so equal seeds give equal rows.

use uuid::Builder;

use super::{
    random::Random,
    words::{self, Kind},
};
use crate::entity::{category, product, vendor};

/// 2025-01-01T00:00:00Z in Unix milliseconds: when the first product was created. Vendors and
/// categories came in the days before.
const FIRST_PRODUCT_MS: u64 = 1_735_689_600_000;
const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;

pub(super) struct Generator {
    random: Random,
    vendors: Vec<Vendor>,
    category_ids: Vec<String>,
}

struct Vendor {
    row: vendor::Model,
    brand: String,
    currency: &'static str,
}

impl Generator {
    pub(super) fn new(seed: u64, vendors: u64) -> Self {
        let mut random = Random::new(seed);
        let vendors = (0..vendors).map(|index| make_vendor(&mut random, index)).collect();
        let category_ids = (0..words::KINDS.len() as u64)
            .map(|index| identifier(&mut random, FIRST_PRODUCT_MS - DAY_MS + index * MINUTE_MS))
            .collect();
        Self { random, vendors, category_ids }
    }

    pub(super) fn vendors(&self) -> Vec<vendor::Model> {
        self.vendors.iter().map(|vendor| vendor.row.clone()).collect()
    }

    pub(super) fn categories(&self) -> Vec<category::Model> {
        let rows = words::KINDS.iter().zip(&self.category_ids);
        rows.map(|(kind, id)| category::Model {
            id: id.clone(),
            name: kind.category.into(),
            slug: slugify(kind.category),
        })
        .collect()
    }

    /// To be called with 0, 1, 2, …: a product depends on those before it.
    pub(super) fn product(&mut self, index: u64) -> product::Model {
        let random = &mut self.random;
        let created_ms = FIRST_PRODUCT_MS + index * MINUTE_MS;
        let kind_index = random.below(words::KINDS.len() as u64) as usize;
        let kind = &words::KINDS[kind_index];
        let vendor = random.pick(&self.vendors);
        let (adjective, noun, size) = (random.pick(kind.adjectives), random.pick(kind.nouns), random.pick(kind.sizes));
        let name = format!("{} {adjective} {noun}, {size}", vendor.brand);
        product::Model {
            id: identifier(random, created_ms),
            vendor_id: vendor.row.id.clone(),
            category_id: self.category_ids[kind_index].clone(),
            name_folded: name.to_lowercase(),
            slug: format!("{}-{index}", slugify(&name)),
            description: describe(random, kind, vendor, noun),
            name,
            price_minor: price(random, kind),
            currency: vendor.currency.into(),
            stock: stock(random),
            version: 1,
            created_at: created_ms as i64,
            updated_at: created_ms as i64,
        }
    }
}

fn make_vendor(random: &mut Random, index: u64) -> Vendor {
    let brand = format!("{}{}", random.pick(words::BRAND_STARTS), random.pick(words::BRAND_ENDS));
    let (form, currency) = random.pick(words::COMPANY_FORMS);
    let name = format!("{brand} {} {form}", random.pick(words::TRADES));
    let id = identifier(random, FIRST_PRODUCT_MS - 30 * DAY_MS + index * MINUTE_MS);
    let slug = format!("{}-{index}", slugify(&name));
    Vendor { row: vendor::Model { id, name, slug }, brand, currency }
}

fn describe(random: &mut Random, kind: &Kind, vendor: &Vendor, noun: &str) -> String {
    let opening = random.pick(words::OPENINGS).replace("{noun}", &noun.to_lowercase());
    let closing = random.pick(words::CLOSINGS).replace("{vendor}", &vendor.row.name);
    format!("{opening} {} {closing}", random.pick(kind.details))
}

/// Between the kind's bounds, cheap ones more often, ending as prices do.
fn price(random: &mut Random, kind: &Kind) -> i64 {
    let (lowest, highest) = kind.price_minor;
    let range = highest - lowest;
    let drawn = lowest + random.below(range + 1).min(random.below(range + 1));
    let ending = *random.pick(&[99, 95, 90, 50, 0]);
    (drawn / 100 * 100 + ending) as i64
}

fn stock(random: &mut Random) -> i64 {
    match random.below(20) {
        0 => 0,
        1..=4 => 1 + random.below(20) as i64,
        _ => 20 + random.below(480) as i64,
    }
}

/// A UUIDv7 (RFC 9562) of the given millisecond.
fn identifier(random: &mut Random, unix_ms: u64) -> String {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&random.next().to_be_bytes());
    bytes[8..].copy_from_slice(&random.next().to_be_bytes()[..2]);
    Builder::from_unix_timestamp_millis(unix_ms, &bytes).into_uuid().to_string()
}

/// Lower-case ASCII words joined by hyphens; letters with accents lose them.
fn slugify(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for letter in name.to_lowercase().chars() {
        let plain = match letter {
            'á' | 'à' | 'â' | 'ä' | 'å' | 'ã' => 'a',
            'é' | 'è' | 'ê' | 'ë' => 'e',
            'í' | 'ì' | 'î' | 'ï' => 'i',
            'ó' | 'ò' | 'ô' | 'ö' | 'ø' | 'õ' => 'o',
            'ú' | 'ù' | 'û' | 'ü' => 'u',
            'ñ' => 'n',
            'ç' => 'c',
            letter => letter,
        };
        if plain.is_ascii_alphanumeric() {
            slug.push(plain);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;
    use crate::IdOrSlug;

    #[test]
    fn rows_are_distinct_sorted_and_within_their_rules() {
        let mut generator = Generator::new(42, 40);
        let rows: Vec<_> = (0..5_000).map(|index| generator.product(index)).collect();
        assert!(rows.is_sorted_by(|left, right| left.id < right.id));
        let slugs: HashSet<_> = rows.iter().map(|row| &row.slug).collect();
        assert_eq!(slugs.len(), rows.len());
        for row in &rows {
            let id = Uuid::try_parse(&row.id).unwrap();
            assert_eq!(id.get_version_num(), 7);
            assert!(matches!(row.slug.parse(), Ok(IdOrSlug::Slug(_))), "{}", row.slug);
            assert!(row.price_minor > 0 && row.stock >= 0, "{row:?}");
            assert!(!row.description.contains('{'), "{}", row.description);
        }
        let sold_out = rows.iter().filter(|row| row.stock == 0).count();
        assert!((150..350).contains(&sold_out), "{sold_out} of 5,000 are sold out");
    }

    #[test]
    fn another_number_gives_other_rows() {
        let first = |number| Generator::new(number, 40).product(0);
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
