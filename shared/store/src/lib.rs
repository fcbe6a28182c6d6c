//! Accounts, credits with holds, and the ledger in DynamoDB.
