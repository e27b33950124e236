// Package ceremony is what people do with keys: drafting a root or a release, reading
// what it changes, signing it on machines that need not know each other, and putting the
// signatures together.
//
// Nobody signs by accident. What is signed is the very file that was reviewed, byte for
// byte, and before a key touches it the file is held against the fleet's roots and its
// last release: a number that is not the next one, a key without the right, content that
// is blocked or belongs elsewhere is refused, and what the file changes is said in plain
// words. Signatures are OpenSSH's: where there is no shoal, ssh-keygen does.
//
// What a fleet is comes from a repository, from a copy of its tree, or from files that
// were carried to a machine without a network: see [Source].
package ceremony
