"""Devices as Linux' sysfs shows them on boards: an FTDI adapter behind a hub, a camera, a GPIO chip, an I2C sensor, a NIC."""

from mappers.udev.found import Found, Node


def ftdi(
    number: int = 0, *, bus: int = 1, port: str = "1.4", serial: str = "A50285BI", interface: int = 0
) -> Found:
    usb = f"{bus}-{port}"
    at = f"{usb}:1.{interface}"
    name = f"ttyUSB{number}"
    attributes = {"idVendor": "0403", "idProduct": "6001", "product": "FT232R USB UART"}
    if serial:
        attributes["serial"] = serial
    return Found(
        path=f"/devices/pci0000:00/0000:00:00.0/0000:01:00.0/usb{bus}/{bus}-1/{usb}/{at}/{name}/tty/{name}",
        node=Node(name=name, subsystem="tty"),
        above=(
            Node(name=name, subsystem="usb-serial", driver="ftdi_sio"),
            Node(
                name=at,
                subsystem="usb",
                devtype="usb_interface",
                driver="ftdi_sio",
                attributes={"bInterfaceNumber": f"{interface:02d}"},
            ),
            Node(name=usb, subsystem="usb", devtype="usb_device", driver="usb", attributes=attributes),
            Node(
                name=f"{bus}-1",
                subsystem="usb",
                devtype="usb_device",
                driver="usb",
                attributes={"idVendor": "2109", "idProduct": "3431", "product": "USB2.0 Hub"},
            ),
            Node(
                name=f"usb{bus}",
                subsystem="usb",
                devtype="usb_device",
                driver="usb",
                attributes={"idVendor": "1d6b", "idProduct": "0002", "serial": "0000:01:00.0"},
            ),
            Node(
                name="0000:01:00.0",
                subsystem="pci",
                driver="xhci_hcd",
                attributes={"vendor": "0x1106", "device": "0x3483"},
            ),
        ),
        dev_node=f"/dev/{name}",
        properties={"DEVNAME": f"/dev/{name}", "MAJOR": "188", "MINOR": str(number), "SUBSYSTEM": "tty"},
    )


def camera(number: int, index: int) -> Found:
    usb = ftdi().above[2]
    name = f"video{number}"
    attributes = {"idVendor": "046d", "idProduct": "0825", "serial": "9F3A2B10", "product": "Webcam C270"}
    return Found(
        path=f"/devices/pci0000:00/0000:01:00.0/usb1/1-1/1-1.4/1-1.4:1.0/video4linux/{name}",
        node=Node(name=name, subsystem="video4linux", attributes={"index": str(index), "name": "UVC Camera"}),
        above=(
            Node(name="1-1.4:1.0", subsystem="usb", devtype="usb_interface", driver="uvcvideo"),
            Node(name=usb.name, subsystem="usb", devtype="usb_device", attributes=attributes),
            Node(name="0000:01:00.0", subsystem="pci", driver="xhci_hcd"),
        ),
        dev_node=f"/dev/{name}",
    )


GPIO = Found(
    path="/devices/platform/soc/fe200000.gpio/gpiochip0",
    node=Node(name="gpiochip0", subsystem="gpio"),
    above=(
        Node(
            name="fe200000.gpio",
            subsystem="platform",
            driver="pinctrl-bcm2835",
            attributes={"of_node/compatible": "brcm,bcm2711-gpio"},
        ),
        Node(name="soc", subsystem="platform"),
    ),
    dev_node="/dev/gpiochip0",
)
I2C = Found(
    path="/devices/platform/soc/fe804000.i2c/i2c-1/1-0076",
    node=Node(name="1-0076", subsystem="i2c", driver="bmp280", attributes={"name": "bme280"}),
    above=(Node(name="i2c-1", subsystem="i2c"), Node(name="fe804000.i2c", driver="i2c-bcm2835")),
)
NIC = Found(
    path="/devices/pci0000:00/0000:00:1f.6/net/eno1",
    node=Node(name="eno1", subsystem="net", attributes={"address": "02:42:ac:11:00:02"}),
    above=(
        Node(
            name="0000:00:1f.6",
            subsystem="pci",
            driver="e1000e",
            attributes={"vendor": "0x8086", "device": "0x15be"},
        ),
    ),
)
