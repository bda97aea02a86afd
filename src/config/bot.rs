//! `[[bots]]`: the programs that are registered.

use std::time::Duration;

use crate::config::file::{Table, Value};
use crate::config::limits::{DELIVERY_ATTEMPTS, DELIVERY_DEADLINE};
use crate::config::named::{LABEL_BYTES, Named};
use crate::id::BotId;
use crate::limits::Limits;

/// A registered bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bot {
    /// Its id: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub id: BotId,
    /// What users see it called. Absent: nothing but its id.
    pub name: Option<String>,
    /// How long it may hold a delivery. Absent: the limit of that name.
    pub delivery_deadline: Option<Duration>,
    /// Attempts before a delivery to it is parked. Absent: the limit of that name.
    pub delivery_attempts: Option<u32>,
    /// What becomes of an activity that it cannot take.
    pub on_poison: OnPoison,
    /// What users are told then; given if and only if that is to fall back.
    pub fallback_text: Option<String>,
    /// Whom it hears in a conversation with several bots.
    pub hears: Hears,
}

/// Whom a bot hears. Never itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hears {
    /// Users, and who joins and leaves.
    #[default]
    Users,
    /// Other bots as well.
    Everyone,
}

/// What becomes of an activity that a bot cannot take, besides that it is parked in the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPoison {
    /// The next one is handed over.
    Skip,
    /// Those behind it wait for an operator.
    Block,
    /// The user is answered in the bot's place.
    Fallback,
}

/// Longest `fallback_text`, in bytes.
const FALLBACK_BYTES: usize = 4 * 1024;

pub(super) fn read_all(tables: Vec<Table<'_>>, limits: &Limits) -> Named<Bot> {
    let mut bots = Named::new("bot");
    for mut table in tables {
        let id = bots.claim(table.require("id"), check_id);
        let name = table
            .take("name")
            .and_then(|value| value.label(LABEL_BYTES));
        let delivery_deadline = table.take("delivery_deadline").and_then(|value| {
            let deadline = value.duration(DELIVERY_DEADLINE)?;
            if deadline > limits.delivery_ceiling {
                value.refuse("must not be more than the limit `delivery_ceiling`");
            }
            Some(deadline)
        });
        let delivery_attempts = table
            .take("delivery_attempts")
            .and_then(|value| value.count(DELIVERY_ATTEMPTS))
            .and_then(|attempts| u32::try_from(attempts).ok());
        let policies = [
            ("skip", OnPoison::Skip),
            ("block", OnPoison::Block),
            ("fallback", OnPoison::Fallback),
        ];
        let written = table.take("on_poison");
        let on_poison = written.as_ref().and_then(|value| value.choice(&policies));
        let on_poison = on_poison.unwrap_or(OnPoison::Skip);
        let text = table.take("fallback_text");
        match (&text, &written) {
            (Some(text), _) if on_poison != OnPoison::Fallback => {
                text.refuse("is said only with `on_poison = \"fallback\"`");
            }
            (None, Some(written)) if on_poison == OnPoison::Fallback => {
                written.refuse("needs `fallback_text`, which users are told then");
            }
            _ => {}
        }
        let fallback_text = text.and_then(|value| value.label(FALLBACK_BYTES));
        let hears = table
            .take("hears")
            .and_then(|value| {
                value.choice(&[("users", Hears::Users), ("everyone", Hears::Everyone)])
            })
            .unwrap_or_default();
        table.finish();
        bots.values.extend(id.map(|id| Bot {
            id: id.into(),
            name: name.map(str::to_owned),
            delivery_deadline,
            delivery_attempts,
            on_poison,
            fallback_text: fallback_text.map(str::to_owned),
            hears,
        }));
    }
    bots
}

fn check_id(value: &Value<'_>, id: &str) -> bool {
    let fine = (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !fine {
        value.refuse(format!(
            "`{id}` is no bot id: 1 to 64 letters, digits, `.`, `_` and `-`"
        ));
    }
    fine
}
