package cli

import (
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/config"
)

// CompleteChannels offers the channels that this machine's configuration names.
func (c *CLI) CompleteChannels(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	publisher := config.DefaultPublisher()
	if _, err := c.Load("publisher", &publisher); err == nil {
		for _, ch := range publisher.Channels {
			names = append(names, ch.Name)
		}
	}
	agent := config.DefaultAgent()
	if _, err := c.Load("agent", &agent); err == nil {
		for _, app := range agent.Apps {
			names = append(names, app.Name+"/"+app.Channel)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
