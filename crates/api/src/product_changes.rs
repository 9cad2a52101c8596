//! The body of `PATCH /products/{id}`: parsed strictly, validated field by field, all errors at once.

use serde::Deserialize;
use store::ProductChanges;

use crate::error::{ApiError, FieldError};

const MAX_NAME_CHARACTERS: usize = 200;
const MAX_DESCRIPTION_CHARACTERS: usize = 10_000;
/// One million in a currency with two decimals; a larger price is a slip of the keyboard.
const MAX_PRICE_MINOR: i64 = 100_000_000;
const MAX_STOCK: i64 = 10_000_000;

/// What a client may change. Everything else belongs to the server, and naming it is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductPatch {
    name: Option<String>,
    description: Option<String>,
    price: Option<PricePatch>,
    stock: Option<i64>,
}

/// The amount alone: a product keeps its currency.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PricePatch {
    amount: i64,
}

impl TryFrom<ProductPatch> for ProductChanges {
    type Error = ApiError;

    fn try_from(patch: ProductPatch) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let name = patch.name.map(|name| name.trim().to_owned());
        if let Some(name) = &name {
            check_text("/name", name, 1, MAX_NAME_CHARACTERS, &mut errors);
        }
        if let Some(description) = &patch.description {
            check_text("/description", description, 0, MAX_DESCRIPTION_CHARACTERS, &mut errors);
        }
        if let Some(price) = &patch.price {
            check_range("/price/amount", price.amount, MAX_PRICE_MINOR, &mut errors);
        }
        if let Some(stock) = patch.stock {
            check_range("/stock", stock, MAX_STOCK, &mut errors);
        }
        let empty = name.is_none() && patch.description.is_none() && patch.price.is_none() && patch.stock.is_none();
        if empty {
            errors.push(FieldError::new("", "empty", "name at least one of name, description, price, stock"));
        }
        if !errors.is_empty() {
            return Err(ApiError::Invalid(errors));
        }
        Ok(Self {
            name,
            description: patch.description,
            price_minor: patch.price.map(|price| price.amount),
            stock: patch.stock,
        })
    }
}

fn check_text(pointer: &'static str, text: &str, least: usize, most: usize, errors: &mut Vec<FieldError>) {
    let length = text.chars().count();
    if !(least..=most).contains(&length) {
        errors.push(FieldError::new(pointer, "length", format!("must have {least} to {most} characters")));
    }
    if text.chars().any(|character| character.is_control() && !"\n\t".contains(character)) {
        errors.push(FieldError::new(pointer, "characters", "must not contain control characters"));
    }
}

fn check_range(pointer: &'static str, value: i64, most: i64, errors: &mut Vec<FieldError>) {
    if !(0..=most).contains(&value) {
        errors.push(FieldError::new(pointer, "range", format!("must be between 0 and {most}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<ProductChanges, Vec<&'static str>> {
        let patch: ProductPatch = serde_json::from_str(json).map_err(|_| vec!["json"])?;
        ProductChanges::try_from(patch).map_err(|error| match error {
            ApiError::Invalid(errors) => errors.iter().map(|error| error.pointer).collect(),
            _ => vec!["other"],
        })
    }

    #[test]
    fn all_faults_of_a_body_are_reported_together() {
        let faults = check(r#"{"name":" ","price":{"amount":-1},"stock":-5}"#).unwrap_err();
        assert_eq!(faults, ["/name", "/price/amount", "/stock"]);
    }

    #[test]
    fn what_belongs_to_the_server_cannot_be_set() {
        for field in ["id", "version", "vendor_id", "slug", "updated_at", "currency"] {
            assert_eq!(check(&format!(r#"{{"{field}":"x","stock":1}}"#)).unwrap_err(), ["json"], "{field}");
        }
        assert_eq!(check(r#"{"price":{"amount":1,"currency":"EUR"}}"#).unwrap_err(), ["json"]);
    }

    #[test]
    fn an_empty_change_is_refused_and_a_good_one_passes() {
        assert_eq!(check("{}").unwrap_err(), [""]);
        let changes = check(r#"{"name":" Oolong ","price":{"amount":1299}}"#).unwrap();
        assert_eq!(changes.name.as_deref(), Some("Oolong"));
        assert_eq!(changes.price_minor, Some(1299));
    }
}
