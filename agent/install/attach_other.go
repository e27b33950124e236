//go:build !windows

package install

import "context"

// Attach has the service manager's wish to stop end the returned context, where it comes
// by other means than a signal. end is to be called when all is done.
func Attach(ctx context.Context) (_ context.Context, end func()) { return ctx, func() {} }
