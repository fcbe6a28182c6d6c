//! Questions about a profile that several files ask.

use account::Profile;
use account::add_on::Collection;

/// Does Stripe collect the periods with a subscription?
pub(crate) fn is_run_by_stripe(profile: &Profile) -> bool {
    profile.add_on.collection() == Some(Collection::Provider)
}
