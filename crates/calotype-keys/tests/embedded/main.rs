//! The embedded key service over a real catalog.

#[cfg(test)]
mod customers;
#[cfg(test)]
mod kms;
#[cfg(test)]
mod roots;
#[cfg(test)]
mod world;
