module github.com/pion/webrtc/v4

go 1.26

require github.com/pion/datachannel v1.5.9
