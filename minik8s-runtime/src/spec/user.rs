//! Who the process is: from the image's user, the container's wishes and the image's account files. Pure.

use super::SpecError;
use super::rootfs::Accounts;
use minik8s_core::runtime::Security;

/// Numbers for the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// An entry of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// `image_user` is `name`, `uid`, `name:group`, … as an image's configuration spells it.
pub(crate) fn identify(image_user: &str, security: &Security, accounts: &Accounts) -> Result<Identity, SpecError> {
    let (user, group) = match security.user {
        Some(uid) => (id(uid)?.to_string(), None),
        None => match image_user.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
            None => (image_user.to_owned(), None),
        },
    };
    let user = if user.is_empty() { "0".to_owned() } else { user };
    let number = user.parse::<u32>().ok();
    let account = passwd(&accounts.passwd).find(|a| a.name == user || Some(a.uid) == number);
    let uid = match (&account, number) {
        (Some(account), _) => account.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(SpecError::UnknownUser(user)),
    };
    let gid = match (security.group, group) {
        (Some(gid), _) => id(gid)?,
        (None, Some(group)) => find_group(&group, accounts)?,
        (None, None) => account.as_ref().map_or(0, |a| a.gid),
    };
    let counted = account.filter(|_| !security.strict_groups);
    let mut groups: Vec<u32> = counted.map(|a| memberships(a.name, accounts)).unwrap_or_default();
    for group in &security.supplemental_groups {
        groups.push(id(*group)?);
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups })
}

fn id(number: i64) -> Result<u32, SpecError> {
    u32::try_from(number).map_err(|_| SpecError::IdRange(number))
}

fn find_group(name: &str, accounts: &Accounts) -> Result<u32, SpecError> {
    let named = accounts.group.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&name));
    let gid = named.and_then(|f| f.get(2)?.parse().ok()).or_else(|| name.parse().ok());
    gid.ok_or_else(|| SpecError::UnknownGroup(name.to_owned()))
}

fn memberships(user: &str, accounts: &Accounts) -> Vec<u32> {
    let fields = accounts.group.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let member = |f: &Vec<&str>| f.get(3).is_some_and(|m| m.split(',').any(|m| m.trim() == user));
    fields.filter(member).filter_map(|f| f.get(2)?.parse().ok()).collect()
}

fn passwd(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let mut numbers = fields.skip(1).map(|f| f.parse().ok());
        Some(Account { name, uid: numbers.next()??, gid: numbers.next()?? })
    })
}
