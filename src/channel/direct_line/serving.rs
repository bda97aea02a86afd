//! What is served: replaced whole, while requests are answered and streams are open.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::token::SigningKey;
use super::{DirectLine, Served};
use crate::limits::Limits;
use crate::store::{self, Store};

/// The channels that are served. Shows nothing.
pub struct Serving {
    pub(super) sites: Vec<Served>,
    pub(super) key: SigningKey,
}

impl Serving {
    pub(super) fn new(sites: Vec<Served>, store: &dyn Store) -> Result<Self, store::Error> {
        let key = if sites.is_empty() {
            SigningKey::unused()
        } else {
            SigningKey::load(store)?
        };
        Ok(Self { sites, key })
    }

    /// Every secret, by its channel and by its name in tokens.
    fn secrets(&self) -> HashSet<(&str, String)> {
        let sites = self.sites.iter();
        let secrets = sites.flat_map(|served| {
            let listed = served.site.secrets.iter();
            listed.map(|secret| (served.channel.as_str(), self.key.name(secret)))
        });
        secrets.collect()
    }

    /// The channel, if a secret of its list has that name in tokens.
    pub(super) fn site_of(&self, channel: &str, secret: &str) -> Option<usize> {
        self.sites.iter().position(|served| {
            let is_listed = |listed| self.key.name(listed) == secret;
            served.channel.as_str() == channel && served.site.secrets.iter().any(is_listed)
        })
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serving(..)")
    }
}

impl DirectLine {
    /// Gets ready to serve other channels: all that can fail of it.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub fn prepare(&self, sites: Vec<Served>) -> Result<Serving, store::Error> {
        Serving::new(sites, self.engine().store())
    }

    /// Serves other channels from the next request on, and ends the streams whose token is no longer
    /// good.
    pub fn put_in_force(&self, serving: Serving, limits: &Limits) {
        let serving = Arc::new(serving);
        self.inner.reading.resize(limits.direct_line_bytes);
        self.inner.writing.resize(limits.direct_line_bytes);
        self.inner.serving.store(Arc::clone(&serving));
        let secrets = serving.secrets();
        self.inner
            .streams
            .revoke(|site, secret| secrets.contains(&(site, secret.to_owned())));
    }
}
