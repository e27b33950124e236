// Package keys says who signed a byte string, and never more than that.
//
// A signature counts only if it was made by a key the caller named, for the namespace
// the caller named, over exactly the bytes the caller holds. Whatever a signature says
// of itself (its key, its namespace, its hash) is compared with what was asked for and
// never believed. A [Role] is t-of-n: it counts distinct curve points, so one key
// listed twice, under whatever name, counts once.
//
// Keys are OpenSSH keys of two types, ssh-ed25519 and its FIDO2 form
// sk-ssh-ed25519@openssh.com. Signatures are SSHSIG (PROTOCOL.sshsig of OpenSSH), so
// stock ssh-keygen signs and checks them:
//
//	ssh-keygen -Y sign -n shoal.root.v1 -f alice root-1.json
//	ssh-keygen -Y verify -f allowed_signers -I alice -n shoal.root.v1 -s root-1.json.sig < root-1.json
//
// There are no certificates, no RSA or ECDSA keys and no algorithm to negotiate. A
// signer sees about 110 bytes however long the message is, see [ToBeSigned]; private
// keys may therefore live in a file, an ssh-agent, a FIDO2 token, a KMS or behind a
// program of one's own, see [Open].
package keys
